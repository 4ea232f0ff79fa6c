"""Keep the subscriptions of a signal: its receivers in workers, beside Django's own list, and the refused ones.

Each `declared_signal` has one `Subscriptions`; system checks read the conflicts and refusals. `SenderCache` keeps a
value for each sending class: the receivers for `declared_signal`, the templates for `sending/message_templates`.
"""

from __future__ import annotations

import weakref
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from signalbus.compat.django_internals import share_a_sender
from signalbus.connecting.receiver_entries import source_of
from signalbus.exceptions import ConfigurationError
from signalbus.registration.policy import Policy
from signalbus.registration.registry import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from signalbus.compat.django_internals import Key
    from signalbus.registration.registry import Receiver

    Split = tuple[list[Receiver], list[Any], list[Any]]


_NONE: dict[Key, Receiver] = {}


class Subscriptions:
    """The subscriptions of one signal: its receivers, each under the key by which Django keeps it.

    They follow Django's list, under the signal's lock: a receiver that is added there is added here, and one that was
    collected or disconnected is dropped. Looking up takes no lock.
    """

    def __init__(self) -> None:
        self.entries: dict[Key, Receiver] = {}  # the receivers that run in workers
        # The receiver under a key, if it runs in a worker: the dict's own method, since each send calls it often.
        self.get: Callable[[Key], Receiver | None] = self.entries.get
        self._sites: dict[Key, str] = {}  # where each was connected, inline ones too
        self._called: dict[str, dict[Key, Receiver]] = {}
        self._formerly: dict[str, dict[Key, Receiver]] = {}
        self._rivals: list[tuple[Receiver, Receiver]] = []
        self.changes: int = 0  # how often something was added or dropped, or a rival met

    def __contains__(self, key: Key) -> bool:
        """Return whether a receiver is kept under a key; inline receivers count too."""
        return key in self._sites

    def __iter__(self) -> Iterator[Receiver]:
        return (entry for entry in list(self.entries.values()) if entry.function() is not None)

    def add(self, key: Key, entry: Receiver | None, site: str) -> None:
        """Add a receiver that Django has just added, and note another one with the same id.

        Args:
            key: Django's key.
            entry: the receiver, or None if it is an inline one.
            site: where it was connected.
        """
        self.changes += 1
        self.drop(key)  # left behind by code that has replaced Django's list
        self._sites[key] = site
        if entry is None:
            return
        namesakes = self._called.setdefault(entry.id, {})
        self._rivals += [(other, entry) for each, other in namesakes.items() if _rivals(key, entry, each, other)]
        self.entries[key] = namesakes[key] = entry
        for former in entry.policy.was:
            self._formerly.setdefault(former, {})[key] = entry

    def meet(self, key: Key, entry: Receiver | None, site: str) -> None:
        """Compare a receiver with the one that has its key, because of which Django will ignore it.

        Args:
            key: Django's key.
            entry: the receiver, or None if it is an inline one.
            site: where it is connected.

        Raises:
            ConfigurationError: the same one with other options.
        """
        first = self.entries.get(key)
        if first is None and entry is None:
            return  # Django's affair
        if first is not None and entry is not None and first.source != entry.source:
            self._rivals.append((first, entry))
            self.changes += 1
            return
        differing = _differing(first, entry)
        if differing:
            place = (first or entry).place  # type: ignore[union-attr]  # one of them is there
            raise ConfigurationError(
                f"{place} is connected twice with other options: at {self._sites[key]} and at {site} ({differing}). "
                "Say the same in both places, or disconnect() the first."
            )

    def drop(self, key: Key) -> None:
        """Drop the receiver under a key, and the conflicts that it was part of."""
        self.changes += 1
        self._sites.pop(key, None)
        entry = self.entries.pop(key, None)
        if entry is None:
            return
        for index, ids in ((self._called, (entry.id,)), (self._formerly, entry.policy.was)):
            for each in ids:
                namesakes = index[each]
                namesakes.pop(key, None)
                if not namesakes:
                    del index[each]
        self._rivals = [pair for pair in self._rivals if entry not in pair]

    def drop_collected(self, keys: Iterable[Key]) -> None:
        """Drop the receivers under the keys of collected ones; not those that a test's tool has merely hidden."""
        for key in keys:
            self.drop(key)
        self._rivals = [pair for pair in self._rivals if _alive(pair)]

    @property
    def conflicts(self) -> list[Conflict]:
        """The living receivers that share an id."""
        if not self._rivals:
            return []
        return [
            Conflict("receiver", pair[0].id, (pair[0].place, pair[1].place)) for pair in self._rivals if _alive(pair)
        ]

    def find(self, id: str, sender: str | None) -> Receiver | None:  # noqa: A002 - a receiver's id, as everywhere
        """Return the living receiver with an id, best the one for a sender.

        Args:
            id: its id, or one that it had formerly.
            sender: the sender's name.
        """
        namesakes = list(self._called.get(id, _NONE).values())
        if len(namesakes) == 1 and namesakes[0].sender == sender and namesakes[0].function() is not None:
            return namesakes[0]
        now = reversed(namesakes)  # what a reloaded module connected again comes first
        found = [entry for entry in (*now, *self._formerly.get(id, _NONE).values()) if entry.function() is not None]
        return next((entry for entry in found if entry.sender == sender), found[0] if found else None)


def _alive(pair: tuple[Receiver, Receiver]) -> bool:
    return None not in (pair[0].function(), pair[1].function())


def _differing(first: Receiver | None, second: Receiver | None) -> str:
    """Return the options that differ between two connections of a receiver, one of which may be inline."""
    if first is None or second is None:
        kinds = ["inline=True" if entry is None else "in a worker" for entry in (first, second)]
        return f"{kinds[0]}, then {kinds[1]}"
    pairs = {
        field.name: (getattr(first.policy, field.name), getattr(second.policy, field.name)) for field in fields(Policy)
    }
    return ", ".join(f"{name}={old!r}, then {new!r}" for name, (old, new) in pairs.items() if old != new)


def _rivals(key: Key, entry: Receiver, other_key: Key, other: Receiver) -> bool:
    """Return whether two receivers with one id conflict; those of a module that was loaded again do not."""
    if other.function() is None:
        return False
    share = share_a_sender(key, other_key)
    if entry.source != other.source:
        return share or entry.sender == other.sender
    # Django would run it twice for one sending; the message names it once.
    return share and entry.function() is other.function()


class Refusals:
    """The receivers that a signal's ``connect`` refused, for the system checks: a caller may have swallowed the error.

    Texts only, so that nothing refused is kept alive.
    """

    MOST = 100  # objects made and refused for each request must not fill the memory

    def __init__(self) -> None:
        self._texts: dict[object, str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._texts.values()))

    def note(self, receiver: object, text: str) -> None:
        """Remember that a receiver was refused."""
        if len(self._texts) < self.MOST:
            self._texts[_identity(receiver)] = text

    def clear(self, receiver: object) -> None:
        """Forget a refusal: the receiver was connected after all."""
        if self._texts:
            self._texts.pop(_identity(receiver), None)


def sort_out(connected: Iterable[tuple[Any, Receiver | None]]) -> Split:
    """Sort connected receivers: those that run in workers, and the functions and coroutines that run here.

    Args:
        connected: Django's entry of each, with its own entry if it runs in a worker.
    """
    remote: list[Receiver] = []
    sync: list[Any] = []
    asynchronous: list[Any] = []
    # Each: the key, a reference to the receiver, since Django 6.0 one to the sender, is it async.
    for each, entry in connected:
        if entry is not None:
            if entry.function() is not None:
                remote.append(entry)
            continue
        function = each[1]() if isinstance(each[1], weakref.ReferenceType) else each[1]
        if function is not None:
            (asynchronous if each[-1] else sync).append(function)
    return remote, sync, asynchronous


def _identity(receiver: object) -> object:
    """Return a key for a receiver without a reference to it: where a function is written, or the object's identity."""
    source = source_of(receiver)
    if source is None:
        return (type(receiver), id(receiver))
    owner = getattr(receiver, "__self__", None)
    return source if owner is None else (source, id(owner))


class SenderCache:
    """A cache of the receivers of each sending class, for as long as the class lives.

    Django's own cache fails for senders that no weak reference can be made to (None, texts), and takes two model
    instances of one row for the same sender, which its look-up does not. Classes are told apart as by that look-up, by
    their identity: a metaclass may say that two are equal, and a lazy wrapper that it is the class it wraps.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[type], Any]] = {}

    def get(self, sender: Any, default: Any = None) -> Any:
        """Return the cached value of a sender, if it is a class."""
        known = self._known.get(id(sender))
        return known[1] if known is not None and known[0]() is sender else default

    def __setitem__(self, sender: Any, value: Any) -> None:
        """Cache a value for a sender, if it is a class."""
        if not issubclass(type(sender), type):
            return
        key, known = id(sender), self._known

        def forget(gone: weakref.ref[type]) -> None:
            found = known.get(key)
            if found is not None and found[0] is gone:  # else another class has its place by now
                known.pop(key, None)

        known[key] = (weakref.ref(sender, forget), value)

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Empty the cache."""
        self._known.clear()

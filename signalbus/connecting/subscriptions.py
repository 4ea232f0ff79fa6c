"""What is known of one signal's receivers beside Django's own list: those that travel, and what was refused."""

from __future__ import annotations

import weakref
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from signalbus.compat.django_internals import share_a_sender
from signalbus.connecting.factory import source_of
from signalbus.exceptions import ConfigurationError
from signalbus.registration.policy import Policy
from signalbus.registration.registry import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from signalbus.compat.django_internals import Key
    from signalbus.registration.registry import Receiver

    Split = tuple[list[Receiver], list[Any], list[Any]]


class Subscriptions:
    """What is known of one signal's receivers, each under the key by which Django keeps it.

    It follows Django's list, under the signal's lock: who is added there is added here, who died or was disconnected is
    dropped. Looking up takes no lock.
    """

    def __init__(self) -> None:
        self.entries: dict[Key, Receiver] = {}  # those that travel
        # The one under a key, if it travels: the table's own method, because each send asks it for each receiver.
        self.get: Callable[[Key], Receiver | None] = self.entries.get
        self._sites: dict[Key, str] = {}  # where each was connected, inline ones too
        self._called: dict[str, dict[Key, Receiver]] = {}
        self._formerly: dict[str, dict[Key, Receiver]] = {}
        self._rivals: list[tuple[Receiver, Receiver]] = []
        self.changes: int = 0  # how often something was added or dropped, or a rival met

    def __contains__(self, key: Key) -> bool:
        """Whether anything is kept under a key, inline receivers too."""
        return key in self._sites

    def __iter__(self) -> Iterator[Receiver]:
        return (entry for entry in list(self.entries.values()) if entry.function() is not None)

    def add(self, key: Key, entry: Receiver | None, site: str) -> None:
        """Take in what Django has just taken in, and note which other one has its id.

        Args:
            key: Django's key.
            entry: the receiver, or None if it is an inline one.
            site: where it was connected.
        """
        self.changes += 1
        self.drop(key)  # what somebody who replaced Django's list has left behind
        self._sites[key] = site
        if entry is None:
            return
        namesakes = self._called.setdefault(entry.id, {})
        self._rivals += [(other, entry) for each, other in namesakes.items() if _rivals(key, entry, each, other)]
        self.entries[key] = namesakes[key] = entry
        for former in entry.policy.was:
            self._formerly.setdefault(former, {})[key] = entry

    def meet(self, key: Key, entry: Receiver | None, site: str) -> None:
        """Judge a receiver whose key is taken, so that Django will ignore it: the same one again, or another.

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
        """Forget what is kept under a key, and whose rival it was."""
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

    def drop_dead(self, keys: Iterable[Key]) -> None:
        """Drop what is kept under the keys of those who died; not what is merely missing, as a test's tool may ask."""
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

    def called(self, id: str) -> list[Receiver]:  # noqa: A002 - a receiver's id, as everywhere
        """Return the living receivers with an id: those that have it now before those that had it once."""
        now = reversed(list(self._called.get(id, {}).values()))  # what a reloaded module connected again comes first
        return [entry for entry in (*now, *self._formerly.get(id, {}).values()) if entry.function() is not None]


def _alive(pair: tuple[Receiver, Receiver]) -> bool:
    return None not in (pair[0].function(), pair[1].function())


def _differing(first: Receiver | None, second: Receiver | None) -> str:
    """Tell what differs between two connections of a receiver, one of which may be inline."""
    if first is None or second is None:
        kinds = ["inline=True" if entry is None else "in a worker" for entry in (first, second)]
        return f"{kinds[0]}, then {kinds[1]}"
    pairs = {
        field.name: (getattr(first.policy, field.name), getattr(second.policy, field.name)) for field in fields(Policy)
    }
    return ", ".join(f"{name}={old!r}, then {new!r}" for name, (old, new) in pairs.items() if old != new)


def _rivals(key: Key, entry: Receiver, other_key: Key, other: Receiver) -> bool:
    """Whether a message could not tell two receivers with one id apart; a module loaded again has no rivals."""
    if other.function() is None:
        return False
    share = share_a_sender(key, other_key)
    if entry.source != other.source:
        return share or entry.sender == other.sender
    # Django would run it twice for one sending; the message names it once.
    return share and entry.function() is other.function()


class Refusals:
    """What a signal's ``connect`` refused, for the system checks: somebody may have swallowed the error.

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
        """Forget it: the receiver was connected after all."""
        if self._texts:
            self._texts.pop(_identity(receiver), None)


def sort_out(connected: Iterable[tuple[Any, Receiver | None]]) -> Split:
    """Sort what is connected: what travels, and the functions and coroutines that run here.

    Args:
        connected: what Django keeps of each, with what is known of it if it travels.
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
    """Tell a receiver from others without holding it: a function by where it is written, an object by itself."""
    source = source_of(receiver)
    if source is None:
        return (type(receiver), id(receiver))
    owner = getattr(receiver, "__self__", None)
    return source if owner is None else (source, id(owner))


class SenderCache:
    """What is connected for each sending class, for as long as the class lives.

    Django's own cache fails for senders that no weak reference can be made to (None, texts), and takes two model
    instances of one row for the same sender, which its look-up does not. Classes are told apart as by that look-up, by
    their identity: a metaclass may say that two are equal, and a lazy wrapper that it is the class it wraps.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[type], Any]] = {}

    def get(self, sender: Any, default: Any = None) -> Any:
        """Return what is remembered for a sender, if it is a class."""
        known = self._known.get(id(sender))
        return known[1] if known is not None and known[0]() is sender else default

    def __setitem__(self, sender: Any, value: Any) -> None:
        """Remember something for a sender, if it is a class."""
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
        """Forget all."""
        self._known.clear()

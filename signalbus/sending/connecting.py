"""From a function and its policy to a receiver that a worker can find again."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.dispatch.dispatcher import NONE_ID

from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.registry import MAX_ID, MAX_QUEUE, Conflict, Receiver, is_name
from signalbus.retry import Retry
from signalbus.wire.references import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    AnyReceiver = Callable[..., Any]
    Key = tuple[Any, Any]  # Django's own: the uid or the receiver's identity, and the sender's


class Roster:
    """The receivers of one signal that travel, each under the key by which Django keeps it."""

    def __init__(self) -> None:
        self._entries: dict[Key, Receiver] = {}
        self._rivals: list[tuple[Receiver, Receiver]] = []
        self._index: dict[str, list[Receiver]] | None = None
        self._version = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __iter__(self) -> Iterator[Receiver]:
        return (entry for entry in list(self._entries.values()) if entry.function() is not None)

    def get(self, key: Key) -> Receiver | None:
        """Return the receiver that Django keeps under a key, if it is one of those that travel."""
        return self._entries.get(key)

    def add(self, key: Key, entry: Receiver, *, known: bool) -> None:
        """Take in a receiver, and note which other one has its id.

        Args:
            key: Django's key.
            entry: the receiver.
            known: Django has a living receiver under that key, and will ignore this one.
        """
        if not known:
            self._entries.pop(key, None)  # an id() that a dead receiver left behind
        for other_key, other in self._entries.items():
            if other.id == entry.id and _rivals(key, entry, other_key, other):
                self._rivals.append((other, entry))
        if not known:
            self._entries[key] = entry
            self._changed()

    def drop(self, key: Key) -> None:
        """Forget what is kept under a key, and whose rival it was."""
        entry = self._entries.pop(key, None)
        self._changed()
        self._rivals = [pair for pair in self._rivals if entry not in pair]

    def _changed(self) -> None:
        self._version += 1
        self._index = None

    @property
    def conflicts(self) -> list[Conflict]:
        """The living receivers that share an id."""
        if not self._rivals:
            return []
        living = [pair for pair in self._rivals if None not in (pair[0].function(), pair[1].function())]
        return [Conflict("receiver", first.id, (first.place, second.place)) for first, second in living]

    def called(self, id: str) -> list[Receiver]:  # noqa: A002 - a receiver's id, as everywhere
        """Return the living receivers with an id: those that have it now before those that had it once."""
        index = self._index
        if index is None:
            version = self._version
            index = {}
            for entry in reversed(list(self._entries.values())):  # what a reloaded module connected again comes first
                index.setdefault(entry.id, []).append(entry)
            for entry in self._entries.values():
                for former in entry.was:
                    index.setdefault(former, []).append(entry)
            if version == self._version:  # else somebody has connected meanwhile
                self._index = index
        return [entry for entry in index.get(id, ()) if entry.function() is not None]


def _rivals(key: Key, entry: Receiver, other_key: Key, other: Receiver) -> bool:
    """Whether a message could not tell two receivers with one id apart; a module loaded again has no rivals."""
    if other.function() is None:
        return False
    together = key[1] == other_key[1] or NONE_ID in (key[1], other_key[1])
    if entry.place != other.place:
        return together or entry.sender == other.sender
    # Django would run it twice for one sending; the message names it once.
    return together and key != other_key and entry.function() is other.function()


class SenderCache(weakref.WeakKeyDictionary[Any, Any]):
    """What is connected for each sending class, for as long as the class lives.

    Django's own cache fails for senders that no weak reference can be made to (None, texts), and takes two model
    instances of one row for the same sender, which its look-up does not.
    """

    data: dict[Any, Any]  # the base class's, asked without the detour of its own get(): it is on every send's way

    def get(self, sender: Any, default: Any = None) -> Any:
        """Return what is remembered for a sender, if it is a class."""
        return self.data.get(weakref.ref(sender), default) if isinstance(sender, type) else default

    def __setitem__(self, sender: Any, value: Any) -> None:
        """Remember something for a sender, if it is a class."""
        if isinstance(sender, type):
            super().__setitem__(sender, value)


def reject_unreachable(receiver: AnyReceiver, dispatch_uid: object) -> None:
    """Refuse what a worker could not find again under the name it has here.

    Args:
        receiver: what is being connected.
        dispatch_uid: its uid; a text is a name that lasts.

    Raises:
        ConfigurationError: a lambda, a closure, a bound method or an object, with the cure.
    """
    if isinstance(dispatch_uid, str) and dispatch_uid:
        return
    name = getattr(receiver, "__qualname__", None)
    if name is None:
        kind = "an object"
    elif name.endswith("<lambda>"):
        kind = "a lambda"
    elif "<locals>" in name:
        kind = "a function inside a function"
    elif getattr(receiver, "__self__", None) is not None:
        kind = "a bound method"
    else:
        return
    raise ConfigurationError(
        f"{receiver!r} is {kind}: a worker could not find it again by name. Connect a function of a module, or give it "
        'a dispatch_uid="…" that every process uses, or run it in the sender\'s process with inline=True.'
    )


def receiver_id(receiver: AnyReceiver, sender: str | None, dispatch_uid: object) -> str:
    """Return the id that messages call a receiver by.

    Args:
        receiver: the function.
        sender: the name of the sender it is connected for.
        dispatch_uid: its uid; a text is the id.

    Returns:
        The uid, or ``module.qualname``, followed by the sender's name if it has one.
    """
    if isinstance(dispatch_uid, str) and dispatch_uid:
        return dispatch_uid
    name = f"{receiver.__module__}.{receiver.__qualname__}"
    return name if sender is None else f"{name}[{sender}]"


def _place_of(receiver: AnyReceiver) -> str:
    # A decorator's wrapper stands where the decorator does: what it wraps is the place that a person looks for.
    code = getattr(inspect.unwrap(receiver), "__code__", None)
    module = getattr(receiver, "__module__", type(receiver).__module__)
    name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
    return f"{module}.{name}" if code is None else f"{module}.{name} ({code.co_filename}:{code.co_firstlineno})"


def _function_of(receiver: AnyReceiver, weak: bool) -> Callable[[], AnyReceiver | None]:
    if not weak:
        return lambda: receiver
    if hasattr(receiver, "__self__") and hasattr(receiver, "__func__"):
        return weakref.WeakMethod(receiver)
    return weakref.ref(receiver)


def _name_of_sender(sender: object) -> str | None:
    try:
        return name_of(sender)
    except PayloadError as error:
        raise ConfigurationError(
            f"sender={sender!r}: {error.reason} A sender that has no name in other processes can only be listened to "
            "with inline=True."
        ) from error


def _relations(select_related: object) -> dict[str, tuple[str, ...]]:
    """Check what is to be fetched along; whether a model has such relations shows when its rows are fetched."""
    wrong = ConfigurationError(
        f"select_related={select_related!r}: give payload keys and the relations to fetch along with their rows, as in "
        'select_related={"instance": ("cohort__academy",)}.'
    )
    if select_related is None:
        return {}
    if not isinstance(select_related, Mapping):
        raise wrong
    relations: dict[str, tuple[str, ...]] = {}
    for key, names in select_related.items():
        if not isinstance(names, Iterable):
            raise wrong
        relations[key] = (names,) if isinstance(names, str) else tuple(names)
    if not all(is_name(text, MAX_ID) for texts in [tuple(relations), *relations.values()] for text in texts):
        raise wrong
    return relations


def resolve_entry(  # noqa: PLR0913 - a receiver's whole policy
    receiver: AnyReceiver,
    sender: object,
    weak: bool,
    dispatch_uid: object,
    *,
    retry: Retry | None,
    queue: str | None,
    atomic: bool,
    on_missing: str,
    timeout: float | None,
    select_related: Mapping[str, Iterable[str]] | None,
    was: Iterable[str],
) -> Receiver:
    """Make the registry's entry of a receiver.

    Args:
        receiver: the function.
        sender: what it is connected for, or None.
        weak: hold it weakly.
        dispatch_uid: its uid.
        retry: its retries, or None for the default.
        queue: its Celery queue, or None for the default.
        atomic: run in a transaction.
        on_missing: "skip", "fail" or "snapshot".
        timeout: seconds, or None.
        select_related: for payload keys the relations to fetch along, or None.
        was: former ids.

    Returns:
        The entry.

    Raises:
        ConfigurationError: a policy that means nothing.
    """
    if on_missing not in {"skip", "fail", "snapshot"}:
        raise ConfigurationError(f'on_missing={on_missing!r}: say "skip", "fail" or "snapshot".')
    if timeout is not None and not (isinstance(timeout, (int, float)) and 0 < timeout < math.inf):
        raise ConfigurationError(f"timeout={timeout!r}: a timeout is a number of seconds above 0, or None.")
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError(f"retry={retry!r}: give a signalbus.Retry, as in retry=Retry(max_attempts=5).")
    if queue is not None and not is_name(queue, MAX_QUEUE):
        raise ConfigurationError(
            f"queue={queue!r}: a queue's name is a text of up to {MAX_QUEUE} printable characters."
        )
    sender_name = _name_of_sender(sender)
    id_ = receiver_id(receiver, sender_name, dispatch_uid)
    if not is_name(id_, MAX_ID):
        raise ConfigurationError(
            f"{id_!r}: a receiver's id is a text of up to {MAX_ID} printable characters: give it a dispatch_uid."
        )
    return Receiver(
        id=id_,
        function=_function_of(receiver, weak),
        sender=sender_name,
        place=_place_of(receiver),
        retry=retry or Retry(),
        queue=queue,
        atomic=atomic,
        on_missing=on_missing,
        timeout=timeout,
        select_related=_relations(select_related),
        was=(was,) if isinstance(was, str) else tuple(was),
        is_async=iscoroutinefunction(receiver) or iscoroutinefunction(getattr(receiver, "__call__", None)),  # noqa: B004 - is it async?
    )

"""Define the events of a message's life, and call the listeners of each kind.

An event is emitted once, after the commit that made it true, in the process and on the thread where it happened.
Listeners observe and decide nothing (decision 0042): what a listener returns is ignored, and what it raises is
logged. An event is made only if somebody listens to its kind: ask `is_heard` first.
"""

from __future__ import annotations

import inspect
import logging
from threading import Lock
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, get_args

from signalbus.context import current_delivery
from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.context import CurrentDelivery
    from signalbus.registration.registry import Receiver

    Listener = Callable[["Event"], object]

L = TypeVar("L", bound="Listener")

logger: logging.Logger = logging.getLogger("signalbus")

Kind = Literal[
    "sent",
    "recorded",
    "published",
    "claimed",
    "started",
    "done",
    "failed",
    "dead",
    "skipped",
    "parked",
    "held",
    "discarded",
    "retried",
    "requeued",
    "refused",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Event(NamedTuple):
    """An event of a delivery: one message to one receiver. New fields are added at the end.

    Args:
        kind: the kind of event; docs/events.md explains each.
        delivery: the delivery; its ``attempt`` is 0 while none was made. The receiver's id is empty for a message
            whose receivers the worker looks up, the signal's name for a text that was never opened.
        error: the exception, or the reason; None if there is none.
        delay: seconds until the delivery is due again.
        seconds: how long the attempt took, with loading its rows; None if there was none, or its process was lost.
        worker: host and process id of the worker that had the delivery; empty for what senders, sweepers and commands
            tell.
        receiver: the connected receiver with its options; None where it was not looked up.
    """

    kind: Kind
    delivery: CurrentDelivery
    error: BaseException | None = None
    delay: float = 0.0
    seconds: float | None = None
    worker: str = ""
    receiver: Receiver | None = None


_listeners: dict[Kind, tuple[Listener, ...]] = dict.fromkeys(KINDS, ())  # replaced, never changed: threads read them
_lock = Lock()


def listen(*kinds: Kind) -> Callable[[L], L]:
    """Call the decorated function with each event of some kinds, in the process where it happens.

    Args:
        kinds: which; all of them if none is named.

    Returns:
        A decorator, which returns the function unchanged.

    Raises:
        ConfigurationError: there is no such kind, or the function is a coroutine function.
    """
    for kind in kinds:
        if kind not in _listeners:
            raise ConfigurationError(f"{kind!r} is no kind of event; the kinds are: {', '.join(KINDS)}.")

    def register(listener: L) -> L:
        if inspect.iscoroutinefunction(listener):
            raise ConfigurationError(
                f"{listener!r} is a coroutine function, and nobody would await it: listen with a plain function."
            )
        with _lock:
            for kind in kinds or KINDS:
                if listener not in _listeners[kind]:
                    _listeners[kind] = (*_listeners[kind], listener)
        return listener

    return register


def unlisten(listener: Listener) -> None:
    """Stop calling a listener, as at the end of a test.

    Args:
        listener: a function that `listen` registered; one that is not registered changes nothing.
    """
    with _lock:
        for kind, listeners in _listeners.items():
            _listeners[kind] = tuple(each for each in listeners if each != listener)


def is_heard(kind: Kind) -> bool:
    """Return whether a kind has a listener; if not, its events need not be made.

    Args:
        kind: the kind.
    """
    return bool(_listeners[kind])


def tell(event: Event) -> None:
    """Call the listeners of an event's kind, with its delivery as the current one; an error of theirs is logged.

    Args:
        event: the event, after the commit that made it true.
    """
    listeners = _listeners[event.kind]
    if not listeners:
        return
    token = current_delivery.set(event.delivery)
    try:
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # a host's function may raise anything, and the delivery goes on
                logger.exception("signalbus: the listener %r failed, and missed an event: %s", listener, event.kind)
    finally:
        current_delivery.reset(token)

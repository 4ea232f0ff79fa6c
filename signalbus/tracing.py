"""Call the tracers that are switched on: at each `send()`, around each publication, and around each run of a receiver.

`telemetry/` has the tracers; without one, each of these places looks at an empty tuple. What a tracer returns at
`send()` travels in the signed header of the message, which a worker reads once it has verified the text. A message's
version does not depend on it, and no delivery leaves a group commit for it. An error of a tracer is logged, and changes
nothing else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from signalbus.wire.message import trace_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType
    from uuid import UUID

    from signalbus.context import CurrentDelivery
    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")

MOST_CHARS: Final = 8192  # of a header: a longer one is left out
JOINED: Final = "baggage"  # the header to which several tracers add


class Creation(NamedTuple):
    """A message that is being made.

    Args:
        id: its id.
        signal: the signal's name.
        size: of its payload, in bytes.
        root: the id of the message that began the cascade; None if this one does.
        routes: the ids of its receivers by queue; those of an open message are None.
        is_alone: whether it is sent by itself; not one of several, as of `send_many()`.
    """

    id: UUID
    signal: str
    size: int
    root: UUID | None
    routes: Mapping[str | None, tuple[str, ...] | None]
    is_alone: bool = True


class Tracer(Protocol):
    """Makes spans, or what a tracing system calls so.

    One whose attribute `publishes` is False is not called at publications.
    """

    def create(self, made: Creation) -> Mapping[str, str]:
        """Return the headers that a message takes along, at ``send()`` in the sender's thread.

        Args:
            made: the message.
        """

    def publish(self, queue: str, sent: Sequence[Mapping[str, str]]) -> AbstractContextManager[object]:
        """Return a context manager for a publication.

        Args:
            queue: the queue's name.
            sent: the headers of each message.
        """

    def process(self, delivery: CurrentDelivery, message: Message) -> AbstractContextManager[object]:
        """Return a context manager for a run of a receiver, with the loading of its rows.

        Args:
            delivery: the delivery.
            message: its message, with the headers of `create`.
        """


tracers: tuple[Tracer, ...] = ()  # replaced, never changed: threads read it
publishers: tuple[Tracer, ...] = ()  # those of them that are called at publications


def add_tracer(tracer: Tracer) -> None:
    """Switch a tracer on, from now on and in this process."""
    _replace((*tracers, tracer))


def remove_tracer(tracer: Tracer) -> None:
    """Switch a tracer off, as at the end of a test."""
    _replace(tuple(each for each in tracers if each is not tracer))


def _replace(found: tuple[Tracer, ...]) -> None:
    global tracers, publishers
    tracers, publishers = found, tuple(each for each in found if getattr(each, "publishes", True))


def created(made: Creation) -> dict[str, str]:
    """Return the headers that a message takes along.

    Args:
        made: the message.
    """
    headers: dict[str, str] = {}
    for tracer in tracers:
        try:
            found = tracer.create(made)
        except Exception:  # a tracing system may raise anything, and the message is sent
            logger.exception("signalbus: the tracer %r failed, and the message %s has no trace", tracer, made.id)
            continue
        for name, value in found.items():
            joined = f"{headers[name]},{value}" if name == JOINED and name in headers else value
            if len(joined) <= MOST_CHARS:
                headers[name] = joined
    return headers


def publishing(queue: str, texts: Iterable[str]) -> AbstractContextManager[object]:
    """Return a context manager for a publication.

    Args:
        queue: the queue's name.
        texts: texts that this process has just signed; markers of ours are passed over.
    """
    sent = [headers for text in texts if (headers := _headers_of(text)) is not None]
    return _Around([(tracer, tracer.publish, (queue, sent)) for tracer in publishers] if sent else [])


def processing(delivery: CurrentDelivery, message: Message) -> AbstractContextManager[object]:
    """Return a context manager for a run of a receiver.

    Args:
        delivery: the delivery.
        message: its message.
    """
    return _Around([(tracer, tracer.process, (delivery, message)) for tracer in tracers])


def _headers_of(text: str) -> Mapping[str, str] | None:
    return trace_of(text.split(".", 2)[2])


class _Around:
    """Enters the context managers of tracers; their errors are logged, and those of the body pass.

    Args:
        makers: each tracer, what makes its context manager, and the arguments.
    """

    def __init__(self, makers: Iterable[tuple[Tracer, Callable[..., AbstractContextManager[object]], Any]]) -> None:
        self._makers = makers
        self._entered: list[tuple[Tracer, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for tracer, make, arguments in self._makers:
            try:
                entered = make(*arguments)
                entered.__enter__()
            except Exception:
                logger.exception("signalbus: the tracer %r failed", tracer)
            else:
                self._entered.append((tracer, entered))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for tracer, entered in reversed(self._entered):
            try:
                entered.__exit__(kind, error, at)
            except Exception as raised:
                if raised is not error:
                    logger.exception("signalbus: the tracer %r failed", tracer)

"""Emit the events of a send: `sent` and `recorded` for each delivery, after the commit.

`outbox` calls it, and only if somebody listens (decision 0042).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus.context import delivery_of
from signalbus.events import Event, is_heard, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from signalbus.events import Kind
    from signalbus.sending.outgoing import Outgoing


def is_sending_heard() -> bool:
    """Return whether ``sent`` or ``recorded`` has a listener."""
    return is_heard("sent") or is_heard("recorded")


def tell_sent(outgoing: Sequence[Outgoing]) -> None:
    """Emit ``sent`` for each message, and ``recorded`` for those with rows, after the sender's commit."""
    tell_each("sent", outgoing)
    tell_each("recorded", [item for item in outgoing if item.route.recorded or item.rule is not None])


def tell_each(kind: Kind, outgoing: Iterable[Outgoing], error: BaseException | None = None) -> None:
    """Emit an event for each delivery of some messages, if a listener is registered.

    Args:
        kind: the kind of event.
        outgoing: the messages.
        error: the cause, if there is one.
    """
    if is_heard(kind):
        for item in outgoing:
            message = item.message
            for receiver in ("",) if message.recipients is None else message.recipients:
                tell(Event(kind, delivery_of(message, receiver, 0), error))

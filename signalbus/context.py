"""Keep the current delivery: the one that this thread or task is running, if any.

`receiving/invoking/invocation` sets it around each run, `signalbus.current()` returns it, and a send reads it for its
lineage.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from signalbus.core.fast_instances import unfrozen_class
from signalbus.wire.message import delivery_id

if TYPE_CHECKING:
    from uuid import UUID

    from signalbus.wire.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentDelivery:
    """A delivery: one message to one receiver.

    Args:
        message_id: the message that is delivered.
        signal: its signal's name.
        receiver: the id of the receiver that runs.
        attempt: 1 for the first run.
        root: the message that began the cascade; the message itself if the cascade began with it.
        parent: the message whose receiver sent this one, or None.
        path: the names of the signals from the root to the parent.
    """

    message_id: UUID
    signal: str
    receiver: str
    attempt: int
    root: UUID
    parent: UUID | None
    path: tuple[str, ...]

    @property
    def id(self) -> UUID:
        """The id of the delivery, the same for all attempts; give it to other systems as an idempotency key."""
        return delivery_id(self.message_id, self.receiver)


_Unfrozen: Any = unfrozen_class(CurrentDelivery)


def delivery_of(message: Message, receiver: str, attempt: int) -> CurrentDelivery:
    """Return the delivery of a message to a receiver.

    Args:
        message: the message.
        receiver: the receiver's id, as the message has it; empty if the workers resolve the receivers.
        attempt: the number of the attempt; 0 before the first one.
    """
    delivery = _Unfrozen(message.id, message.signal, receiver, attempt, message.root, message.parent, message.path)
    delivery.__class__ = CurrentDelivery
    return delivery  # type: ignore[no-any-return]  # it is one now


current_delivery: ContextVar[CurrentDelivery | None] = ContextVar("signalbus_delivery", default=None)


def current() -> CurrentDelivery | None:
    """Return the delivery that is running here.

    Returns:
        The delivery, inside a receiver that a worker runs; None anywhere else.
    """
    return current_delivery.get()

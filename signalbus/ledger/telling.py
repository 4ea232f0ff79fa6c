"""The deliveries that events are told of, from their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus.context import CurrentDelivery, delivery_of
from signalbus.exceptions import SignalBusError
from signalbus.wire.message import from_body

if TYPE_CHECKING:
    from uuid import UUID

    from signalbus.models import Delivery


def delivery_of_row(row: Delivery) -> CurrentDelivery:
    """Return the delivery of a row, with the lineage that its message carries.

    Args:
        row: with its message. One whose text nobody has verified, or that cannot be read, has no lineage.
    """
    if not row.message.sealed:
        try:
            return delivery_of(from_body(row.message.text), row.receiver, row.attempts)
        except (SignalBusError, ValueError):
            pass
    return delivery_of_text(row.message_id, row.message.signal, row.receiver, row.attempts)


def delivery_of_text(message: UUID, signal: str = "", receiver: str = "", attempts: int = 0) -> CurrentDelivery:
    """Return the delivery of a text that was not opened, as far as it is known.

    Args:
        message: the id that the ledger gave it.
        signal: the signal's name, if it is known.
        receiver: the receiver's id, if it is known.
        attempts: how many were made.
    """
    return CurrentDelivery(
        message_id=message, signal=signal, receiver=receiver, attempt=attempts, root=message, parent=None, path=()
    )

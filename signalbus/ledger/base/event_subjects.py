"""Emit an event for each changed row, after the commit of the transaction that changes it (decision 0042).

The functions that change the state of rows call `tell_of_rows` before the change. Events of an attempt are not
emitted here: the code that runs it does that, through `receiving/process/worker_events`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction

from signalbus.context import CurrentDelivery, delivery_of
from signalbus.events import Event, is_heard, tell
from signalbus.exceptions import SignalBusError
from signalbus.wire.message import from_body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from django.db.models import QuerySet

    from signalbus.events import Kind
    from signalbus.models import Delivery


def tell_of_rows(kind: Kind, rows: QuerySet[Delivery], error: BaseException | None = None) -> None:
    """Emit an event for each of some rows after the commit; without a listener they are not even read.

    Call it in the transaction that changes the rows, before the change.

    Args:
        kind: the kind of event.
        rows: the rows.
        error: the cause, if there is one.
    """
    if is_heard(kind):
        deliveries = [delivery_of_row(row) for row in rows.select_related("message")]
        transaction.on_commit(partial(_tell_each, kind, deliveries, error), using=rows.db, robust=True)


def _tell_each(kind: Kind, deliveries: Sequence[CurrentDelivery], error: BaseException | None) -> None:
    for delivery in deliveries:
        tell(Event(kind, delivery, error))


def delivery_of_row(row: Delivery) -> CurrentDelivery:
    """Return the delivery of a row, with the lineage that its message carries.

    Args:
        row: the row with its message. A text that was not verified, or cannot be read, has no lineage.
    """
    if not row.message.sealed:
        try:
            return delivery_of(from_body(row.message.text), row.receiver, row.attempts)
        except (SignalBusError, ValueError):
            pass  # an event is still told, with what the row itself says
    return delivery_of_text(row.message_id, row.message.signal, row.receiver, row.attempts)


def delivery_of_text(message: UUID, signal: str = "", receiver: str = "", attempts: int = 0) -> CurrentDelivery:
    """Return the delivery of a text that was not read, as far as it is known.

    Args:
        message: the id of its row.
        signal: the signal's name, if it is known.
        receiver: the receiver's id, if it is known.
        attempts: the number of attempts.
    """
    return CurrentDelivery(
        message_id=message, signal=signal, receiver=receiver, attempt=attempts, root=message, parent=None, path=()
    )

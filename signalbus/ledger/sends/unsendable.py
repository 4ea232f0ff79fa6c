"""Record a message that ``send_robust()`` could not send, as dead deliveries without a text (decision 0017).

`sending/robust_failures` calls it, so that ``manage.py signalbus failed`` lists the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus.core.error_groups import group_of
from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import insert, new_delivery, storable
from signalbus.ledger.base.settlements import Settlement
from signalbus.models import State, StoredMessage
from signalbus.wire.message import uuid7

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID


def record_unsendable(
    signal: str, recipients: Iterable[tuple[str, str | None]], error: BaseException, traceback: str
) -> UUID:
    """Record a message that could not be sent as dead deliveries, in the open transaction if there is one.

    Args:
        signal: the signal's name.
        recipients: ids of its receivers, with their queues; one empty id for an open signal.
        error: the error.
        traceback: its traceback.

    Returns:
        The message's id.
    """
    # Sealed, like a text that was not verified: it can be discarded, and never published.
    message = StoredMessage(id=uuid7(), signal=storable(signal), text="", sealed=True, created_at=Now())
    reason = f"{type(error).__name__}: {error}"
    rows = []
    for receiver, queue in recipients:
        group = group_of(error, receiver)
        dead = Settlement(state=State.DEAD, error=reason, traceback=traceback, error_group=group)
        rows.append(new_delivery(message.id, receiver, queue, **dead.fields()))
    insert([message], rows)
    return message.id

"""Record dead deliveries of a message that could not be encoded: they have no text to retry (decision 0017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import Settlement, insert, new_delivery, storable
from signalbus.models import State, StoredMessage
from signalbus.wire.message import uuid7

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID


def keep_unsendable(signal: str, recipients: Iterable[tuple[str, str | None]], error: str, traceback: str) -> UUID:
    """Keep a message that could not be encoded as dead deliveries, in the open transaction if there is one.

    Args:
        signal: the signal's name.
        recipients: ids of the receivers it was meant for, with their queues; one empty id for whoever listens.
        error: why it could not be sent.
        traceback: where.

    Returns:
        The message's id.
    """
    # Sealed, as what nobody vouches for: it can be discarded, and never be published.
    message = StoredMessage(id=uuid7(), signal=storable(signal), text="", sealed=True, created_at=Now())
    dead = Settlement(state=State.DEAD, error=error, traceback=traceback).fields()
    insert([message], [new_delivery(message.id, receiver, queue, **dead) for receiver, queue in recipients])
    return message.id

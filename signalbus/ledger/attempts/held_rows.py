"""Set a delivery that a gate does not let run to the state `held`, with the reason and a time (decision 0045).

`receiving/running/attempt` calls `hold_delivery` with the verdict of `receiving/running/gates`. The sweeper publishes
a held delivery when its time is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Q

from signalbus.ledger.base.clock import LATEST, Now, later
from signalbus.ledger.base.deliveries import record_deliveries, shorten, update_free, using
from signalbus.models import Delivery, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from uuid import UUID

    from signalbus.wire.message import Message


def hold_delivery(
    delivery: UUID,
    reason: str,
    seconds: float,
    *,
    unrecorded: tuple[Message, str, str | None] | None = None,
    still_applies: Callable[[], bool] | None = None,
) -> bool:
    """Hold a delivery that a worker has received and not begun; no attempt is counted.

    Args:
        delivery: its id.
        reason: why.
        seconds: until the sweeper publishes it; infinite: until its pause is over, or `release_held`.
        unrecorded: the message, the receiver's id and the queue of a delivery that has no row yet; None if it has one.
        still_applies: called in the transaction: whether the reason still applies; if not, the delivery is due at once.

    Returns:
        False if the delivery runs, is not due, is held already, or has ended: its row is as it was.
    """
    alias = using()
    with transaction.atomic(using=alias):
        if still_applies is not None and not still_applies():
            seconds = 0.0
        if unrecorded is not None:
            message, receiver, queue = unrecorded
            record_deliveries(message, [receiver], queue)
        # What a worker could take at this moment, and nothing else.
        free = Q(state__in=(State.PUBLISHED, State.PARKED)) | Q(state=State.PENDING, due_at__lte=Now())
        rows = Delivery.objects.using(alias).filter(free, id=delivery)
        return bool(
            update_free(rows, state=State.HELD, held_reason=shorten(reason), due_at=later(seconds), parked_at=None)
        )


def release_held(receivers: Collection[str]) -> int:
    """Make due what is held for some receivers, whatever was said about the time.

    Args:
        receivers: their ids, as the messages have them.

    Returns:
        How many deliveries.
    """
    rows = Delivery.objects.using(using()).filter(state=State.HELD, receiver__in=receivers)
    return update_free(rows, kind="requeued", state=State.PENDING, due_at=Now())


def count_held() -> int:
    """Count the deliveries that are held."""
    return Delivery.objects.using(using()).filter(state=State.HELD).count()


def waits_for_release(row: Delivery) -> bool:
    """Return whether a held delivery waits for `release_held` or the end of a pause, and for no time.

    Args:
        row: the delivery.
    """
    return (row.due_at - row.created_at).total_seconds() > LATEST / 2

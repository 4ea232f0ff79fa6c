"""Release the deliveries of a pause that was resumed or is over, in batches or at a rate; called by the sweeper.

The sweepers of all workers share a rate: `resumed_at` of the pause moves on as the rate is used, and the sweeper that
releases something locks the row. The pause is deleted when it holds nothing any more.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from django.db import connections, transaction
from django.db.models import Q

from signalbus.ledger.attempts.pauses import held_by
from signalbus.ledger.base.clock import Now, clock_of
from signalbus.ledger.base.deliveries import CHUNK, update_free, using
from signalbus.models import Delivery, Pause, State

if TYPE_CHECKING:
    from django.db.models import QuerySet

AGAIN_SECONDS: Final = 0.2  # between two looks at a pause whose rate is used up
MOST_SECONDS: Final = 10.0  # of a rate that are made up for if no sweeper has released anything meanwhile


def held_deliveries(kind: str, name: str) -> QuerySet[Delivery]:
    """Return the deliveries that a pause holds.

    Args:
        kind: the kind of what is paused.
        name: its name.
    """
    held = Delivery.objects.using(using()).filter(state=State.HELD, ended_at=None)
    return held.filter(held_reason__startswith=held_by(kind, name))


def release_some(pause: int, limit: int = CHUNK) -> float | None:
    """Make due some of the deliveries of a pause that is over, the first held first in each queue.

    Args:
        pause: the row's id.
        limit: the maximal number.

    Returns:
        The seconds until more can be released, 0 for at once; None if it holds nothing more, is in force again, or
        another sweeper releases it.
    """
    alias = using()
    with transaction.atomic(using=alias):
        rows = Pause.objects.using(alias).filter(Q(resumed_at__isnull=False) | Q(until__lte=Now()), pk=pause)
        features = connections[alias].features
        found = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked).first()
        if found is None:  # another sweeper has the row, a delivery is being held for it now, or it was renewed
            return None
        count = _allowance(found, limit)
        held = held_deliveries(found.kind, found.name)
        # In the order of the index: all of them wait without an end, so the first held are due first.
        ids = list(held.order_by("queue", "due_at").values_list("id", flat=True)[:count])
        chosen = Delivery.objects.using(alias).filter(id__in=ids, state=State.HELD)
        if ids:
            update_free(chosen, kind="requeued", state=State.PENDING, due_at=Now())
        if not held.exists():
            found.delete()
            return None
    return 0.0 if len(ids) == limit else AGAIN_SECONDS


def _allowance(pause: Pause, limit: int) -> int:
    """Return how many deliveries may be released now, and note that the rate has been used for them."""
    rate = pause.resume_rate
    if rate is None:
        return limit
    now = clock_of(using())
    since = max(pause.resumed_at or now, now - timedelta(seconds=max(MOST_SECONDS, 1 / rate)))
    count = min(limit, math.floor(rate * (now - since).total_seconds()))
    Pause.objects.using(using()).filter(pk=pause.pk).update(resumed_at=since + timedelta(seconds=count / rate))
    return count

"""Count the waiting deliveries of each queue, and the failed ones by state, for ``manage.py signalbus status``.

`management/status_report` calls it, and compares it with what the broker says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from django.db.models import Count, Max, Min, Q

from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import using
from signalbus.models import Delivery, QueueState, State

if TYPE_CHECKING:
    from datetime import datetime

WAITING = Q(state=State.PUBLISHED) | Q(state=State.PENDING, due_at__lte=Now())


@dataclass(frozen=True, slots=True)
class Backlog:
    """The waiting deliveries of a queue, and the last sign of a worker, as the ledger has them.

    Args:
        waiting: deliveries that are published, or due to be, and that no worker has begun.
        oldest: when the oldest of these was sent, or None.
        seen_at: when a worker of this queue last began a delivery or returned a marker, or None.
    """

    waiting: int = 0
    oldest: datetime | None = None
    seen_at: datetime | None = None


class Failures(NamedTuple):
    """The numbers of retrying, parked and dead deliveries.

    Args:
        retrying: failed, and wait for their next attempt.
        parked: wait for a worker with newer code or keys.
        dead: are not run again unless a person retries them.
    """

    retrying: int
    parked: int
    dead: int


def failures() -> Failures:
    """Count the deliveries that have failed and are not done since."""
    rows = Delivery.objects.using(using()).order_by()
    return Failures(
        rows.filter(state=State.PENDING, attempts__gt=0).count(),
        rows.filter(state=State.PARKED).count(),
        rows.filter(state=State.DEAD).count(),
    )


def backlogs() -> dict[str, Backlog]:
    """Return the backlog of each queue; the empty name stands for the default queue."""
    alias = using()
    rows = Delivery.objects.using(alias).order_by()
    waiting = {
        queue: (count, oldest)
        for queue, count, oldest in rows.filter(WAITING, ended_at=None)
        .values_list("queue")
        .annotate(count=Count("id"), oldest=Min("created_at"))
    }
    # A worker shows a sign when it begins a delivery, and when it returns a marker.
    seen: dict[str, list[datetime]] = {}
    started = rows.exclude(started_at=None).values_list("queue").annotate(seen=Max("started_at"))
    returned = QueueState.objects.using(alias).exclude(seen_at=None).values_list("queue", "seen_at")
    for queue, moment in [*started, *returned]:
        seen.setdefault(queue, []).append(moment)
    return {
        queue: Backlog(*waiting.get(queue, (0, None)), max(seen[queue]) if queue in seen else None)
        for queue in {*waiting, *seen}
    }

"""Count the waiting deliveries of each queue, and the failed ones by state, and find the last sign of a worker.

Called by ``manage.py signalbus status``, ``check`` and ``doctor``, which compare it with what the broker says. No
statement reads the deliveries that are done, however many they are, except for the newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from django.db.models import Count, Max, Min, Q

from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import using
from signalbus.ledger.history import last_work
from signalbus.models import OPEN_STATES, Delivery, QueueState, RunningDelivery, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from django.db.models import QuerySet

WAITING = Q(state=State.PUBLISHED) | Q(state=State.PENDING, due_at__lte=Now())
NEWEST: Final = 10_000  # deliveries that have ended, among which a sign of a worker is looked for


@dataclass(frozen=True, slots=True)
class Backlog:
    """The waiting deliveries of a queue, and the last sign of a worker, as the ledger has them.

    Args:
        waiting: deliveries that are published, or due to be, and that no worker has begun.
        oldest: when the oldest of these was sent, or None.
        seen_at: when a worker of this queue last ran a delivery or returned a marker, or None.
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


def backlogs(*, finds_workers: bool = True) -> dict[str, Backlog]:
    """Return the backlog of each queue; the empty name stands for the default queue.

    Args:
        finds_workers: look for the last sign of a worker as well, which takes seven statements.
    """
    rows = Delivery.objects.using(using()).order_by()
    waiting = {
        queue: (count, oldest)
        for queue, count, oldest in rows.filter(WAITING, ended_at=None)
        .values_list("queue")
        .annotate(count=Count("id"), oldest=Min("created_at"))
    }
    seen: dict[str, datetime] = {}
    for queue, moment in _signs_of_workers() if finds_workers else ():
        seen[queue] = max(moment, seen.get(queue, moment))
    return {queue: Backlog(*waiting.get(queue, (0, None)), seen.get(queue)) for queue in {*waiting, *seen}}


def queues_in_ledger() -> set[str]:
    """Return the names of the queues through which a marker came back, or of which an outcome was counted."""
    marked = QueueState.objects.using(using()).values_list("queue", flat=True)
    return {queue for queue in (*marked, *last_work()) if queue}


def has_open(queue: str) -> bool:
    """Return whether a delivery of a queue has not ended.

    Args:
        queue: its name.
    """
    return Delivery.objects.using(using()).filter(ended_at=None, state__in=OPEN_STATES, queue=queue).exists()


def _signs_of_workers() -> Iterator[tuple[str, datetime]]:
    """Yield queues, each with a time at which a worker of it was at work: the last one of each kind of sign.

    What workers have counted is kept for good, and says the minute. The rows say it exactly, and of workers that count
    nothing, as those of 0.4: those that run, and the newest that have ended.
    """
    alias = using()
    returned = QueueState.objects.using(alias).values_list("queue", "seen_at")
    yield from ((queue, at) for queue, at in returned if at is not None)
    yield from last_work().items()
    rows = Delivery.objects.using(alias).order_by()
    claimed = rows.filter(state=State.RUNNING, ended_at=None, started_at__isnull=False)
    yield from claimed.values_list("queue").annotate(seen=Max("started_at"))
    # The claim of an atomic delivery is committed together with its end; its process says that it runs.
    running = dict(RunningDelivery.objects.using(alias).values_list("delivery", "seen_at"))
    yield from ((queue, running[id_]) for queue, id_ in rows.filter(id__in=running).values_list("queue", "id"))
    ended = _newest(rows).filter(started_at__isnull=False)
    yield from ended.values_list("queue").annotate(seen=Max("started_at"))


def _newest(rows: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Limit rows to the newest that have ended, by the index of their ends."""
    ended = rows.filter(ended_at__isnull=False)
    for before in ended.order_by("-ended_at").values_list("ended_at", flat=True)[NEWEST : NEWEST + 1]:
        return ended.filter(ended_at__gt=before)
    return ended

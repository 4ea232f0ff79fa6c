"""Count what is there now, for metrics: open deliveries by queue and state, the dead ones, workers, runs and pauses."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count, Min, Q, Sum

from signalbus.core.error_groups import group_of_fate
from signalbus.ledger.base.clock import Now, clock_of, later
from signalbus.ledger.base.deliveries import using
from signalbus.ledger.base.recording import WAIT
from signalbus.ledger.operations.health import seen_workers, sweeper_seen_at
from signalbus.models import Delivery, Pause, RunningDelivery, State

SCHEDULED: Final = "scheduled"  # pending, and not due yet
SILENT: Final = 30.0  # seconds without a sign after which a run counts as lost


@dataclass(slots=True)
class CurrentCounts:
    """What is there at a moment. Ages are in seconds; queues are named as rows name them, the default one by "".

    Args:
        waiting: open deliveries by queue and state; a pending one that is not due yet is "scheduled".
        oldest: for each queue how long the oldest delivery has waited for a worker since it was due.
        dead: dead deliveries.
        refused: copies of texts that were refused.
        workers: living workers by release.
        slots: by queue how many deliveries its living workers run at a time.
        consumers: by queue how many living workers consume it.
        paused: kind and name of what is paused.
        runs: deliveries that have been running for more than a second.
        longest_run: how long the longest of them has been running.
        sweep_age: since a sweeper last purged, as one does each half minute; None if none ever did.
    """

    waiting: dict[tuple[str, str], int] = field(default_factory=dict)
    oldest: dict[str, float] = field(default_factory=dict)
    dead: int = 0
    refused: int = 0
    workers: Counter[str] = field(default_factory=Counter)
    slots: Counter[str] = field(default_factory=Counter)
    consumers: Counter[str] = field(default_factory=Counter)
    paused: list[tuple[str, str]] = field(default_factory=list)
    runs: int = 0
    longest_run: float = 0.0
    sweep_age: float | None = None


def current_counts() -> CurrentCounts:
    """Count what is there now, in seven statements, of which those about deliveries read indexes alone."""
    alias = using()
    now = clock_of(alias)
    counts = CurrentCounts()
    _count_open(counts, now)
    rows = Delivery.objects.using(alias).order_by()
    dead = rows.filter(state=State.DEAD)
    counts.dead = dead.count()
    if counts.dead:
        # By the index of the groups: to look for sealed texts, PostgreSQL reads all messages.
        refused = dead.filter(error_group=group_of_fate("refused", ""))
        counts.refused = refused.aggregate(copies=Sum("attempts"))["copies"] or 0
    for worker in seen_workers():
        counts.workers[worker.release] += 1
        for queue in worker.queues:
            counts.slots[queue] += worker.concurrency
            counts.consumers[queue] += 1
    counts.paused = list(Pause.objects.using(alias).filter(resumed_at=None).values_list("kind", "name"))
    runs = RunningDelivery.objects.using(alias).filter(seen_at__gte=later(-SILENT))
    found = runs.aggregate(count=Count("*"), first=Min("started_at"))
    counts.runs, counts.longest_run = found["count"], _age(found["first"], now)
    swept_at = sweeper_seen_at()
    counts.sweep_age = None if swept_at is None else _age(swept_at, now)
    return counts


def _count_open(counts: CurrentCounts, now: datetime) -> None:
    rows = Delivery.objects.using(using()).filter(ended_at=None).order_by().values_list("queue", "state")
    found = rows.annotate(count=Count("*"), due=Count("due_at", filter=Q(due_at__lte=Now())), first=Min("due_at"))
    oldest: dict[str, float] = defaultdict(float)
    for queue, state, count, due, first in found:
        if state == State.PENDING:
            counts.waiting[queue, SCHEDULED] = count - due
            counts.waiting[queue, state] = due
            oldest[queue] = max(oldest[queue], _age(first, now))
        else:
            counts.waiting[queue, state] = count
        if state == State.PUBLISHED:  # which is looked at for the first time after a while
            oldest[queue] = max(oldest[queue], _age(first - timedelta(seconds=WAIT), now))
    counts.oldest = dict(oldest)


def _age(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())

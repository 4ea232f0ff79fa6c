"""Keep the outcomes of deliveries over time: add the counts of a process, and merge those of a period (decision 0046).

A row has one writer and is never changed, so that no worker waits for another. One sweeper replaces rows by their sum:
those of a minute, after eight hours those of ten minutes, after three days those of an hour. When it merges what the
processes have counted, it adds them to the total of their receiver as well, which is kept for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta
from operator import add
from typing import TYPE_CHECKING, Final, NamedTuple

from django.db import connections, transaction
from django.db.models import Max, Q

from signalbus.ledger.base.clock import LATEST, clock_of, later
from signalbus.ledger.base.deliveries import using
from signalbus.models import Rollup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

# Upper bounds in seconds of a histogram's counts, 5 ms to 10.6 minutes; the last count is of what took longer.
BOUNDS: Final = tuple(0.005 * 1.5**power for power in range(30))
MINUTE, TEN_MINUTES, HOUR = 60, 600, 3600  # the periods, in seconds
TOTAL: Final = 0  # stands for the period of a total
SETTLED = 120.0  # seconds after which all processes have added their counts of a minute
KEEP_MINUTES, KEEP_TEN_MINUTES = 8 * 3600.0, 3 * 86400.0  # seconds
NOT_MERGED = 3600.0  # seconds for which rows are read beside the totals to tell who works
WORKED: Final = Q(done__gt=0) | Q(runtime_ms__gt=0)  # of a row in which a receiver ran
BATCH = 2000  # rows that one transaction merges
OUTCOMES: Final = ("done", "failed", "dead", "skipped")


class Series(NamedTuple):
    """What is counted apart.

    Args:
        release: of the project's code.
        queue: of the receiver; empty for the default one.
        signal: its name.
        receiver: its id.
    """

    release: str
    queue: str
    signal: str
    receiver: str


def _histogram() -> list[int]:
    return [0] * (len(BOUNDS) + 1)


@dataclass(slots=True)
class Counts:
    """The outcomes of one series.

    Args:
        done: deliveries that succeeded.
        failed: attempts that failed and are repeated.
        dead: deliveries that are dead.
        skipped: deliveries that were skipped.
        runtime: the sum of the times that receivers ran, in seconds.
        delay: the sum of the times between `send()` and the first attempt, in seconds.
        runtimes: runs by run time, a count for each of `BOUNDS`, and one for those above.
        delays: first attempts by delay, likewise.
    """

    done: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0
    runtime: float = 0.0
    delay: float = 0.0
    runtimes: list[int] = field(default_factory=_histogram)
    delays: list[int] = field(default_factory=_histogram)

    def add(self, other: Counts) -> None:
        """Add the counts of another process or period."""
        for name in (*OUTCOMES, "runtime", "delay"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.runtimes = [one + two for one, two in zip(self.runtimes, other.runtimes, strict=True)]
        self.delays = [one + two for one, two in zip(self.delays, other.delays, strict=True)]


def add_counts(counted: Mapping[Series, Counts], *, worker: str) -> None:
    """Add what a process has counted, as rows of this minute.

    Args:
        counted: the outcomes by series.
        worker: the process.
    """
    alias = using()
    minute = clock_of(alias).replace(second=0, microsecond=0)
    rows = [_row(minute, MINUTE, series, counts, worker=worker) for series, counts in counted.items()]
    Rollup.objects.using(alias).bulk_create(rows, batch_size=50)


def merge_counts(keep: float) -> None:
    """Replace the rows of past periods by their sums; one sweeper does.

    Args:
        keep: seconds for which the sums of hours are kept, infinite for ever; the totals contain the older ones.
    """
    now = clock_of(using())
    steps = (
        (Q(seconds=MINUTE, bucket_at__lt=now - timedelta(seconds=SETTLED)) & ~Q(worker=""), MINUTE),
        (Q(seconds=MINUTE, bucket_at__lt=now - timedelta(seconds=KEEP_MINUTES)), TEN_MINUTES),
        (Q(seconds=TEN_MINUTES, bucket_at__lt=now - timedelta(seconds=KEEP_TEN_MINUTES)), HOUR),
    )
    for condition, seconds in steps:
        while _merge_some(condition, seconds) == BATCH:
            pass
    if keep < math.inf:
        old = now - timedelta(seconds=min(keep, LATEST))
        Rollup.objects.using(using()).filter(seconds=HOUR, bucket_at__lt=old).delete()


def _merge_some(condition: Q, seconds: int) -> int:
    """Merge a batch of rows into rows of longer periods; return how many there were."""
    alias = using()
    with transaction.atomic(using=alias):
        rows = Rollup.objects.using(alias).filter(condition).order_by("bucket_at", "id")
        if connections[alias].features.has_select_for_update_skip_locked:
            rows = rows.select_for_update(skip_locked=True)  # another sweeper may be late with the same ones
        found = list(rows[:BATCH])
        if not found:
            return 0
        sums: dict[tuple[datetime, Series], Counts] = {}
        totals: dict[Series, Counts] = {}
        worked: dict[Series, datetime] = {}
        for row in found:
            series, counts = _series_of(row), _counts_of(row)
            sums.setdefault((_start_of(row, seconds), series), Counts()).add(counts)
            if row.worker:  # not merged before
                total = series._replace(release="")
                totals.setdefault(total, Counts()).add(counts)
                if row.done or row.runtime_ms:  # as WORKED says
                    worked[total] = row.bucket_at  # the rows are in their order
        Rollup.objects.using(alias).filter(id__in=[row.pk for row in found]).delete()
        rows_of_sums = [_row(bucket, seconds, series, counts) for (bucket, series), counts in sums.items()]
        Rollup.objects.using(alias).bulk_create(rows_of_sums, batch_size=50)
        _add_to_totals(totals, worked, max(row.bucket_at for row in found))
    return len(found)


def _add_to_totals(counted: Mapping[Series, Counts], worked: dict[Series, datetime], until: datetime) -> None:
    """Replace the totals of receivers, whatever their releases were, by those with what was counted since.

    Args:
        counted: what was counted since.
        worked: in which minute a receiver ran last, if it ran.
        until: the minute that stands in a total of which nothing ever ran.
    """
    if not counted:
        return
    rollups = Rollup.objects.using(using())
    totals = rollups.filter(seconds=TOTAL, receiver__in={series.receiver for series in counted})
    if connections[using()].features.has_select_for_update:
        totals = totals.select_for_update()  # another sweeper may be late; its row would be added to the next time
    changed = [row for row in totals if _series_of(row) in counted]
    for row in changed:
        series = _series_of(row)
        counted[series].add(_counts_of(row))
        worked[series] = max(row.bucket_at, worked.get(series, row.bucket_at))
    rollups.filter(id__in=[row.pk for row in changed]).delete()
    rows = [_row(worked.get(series, until), TOTAL, series, counts) for series, counts in counted.items()]
    rollups.bulk_create(rows, batch_size=50)


def last_work() -> dict[str, datetime]:
    """Return for each queue the last minute in which a receiver of it ran; the empty name is the default queue.

    A failed attempt that another process settles, as its own was lost, is no work.
    """
    alias = using()
    not_merged = Q(seconds=MINUTE, bucket_at__gte=later(-NOT_MERGED)) & ~Q(worker="")
    rows = Rollup.objects.using(alias).filter(Q(seconds=TOTAL) | not_merged, WORKED).order_by()
    return dict(rows.values_list("queue").annotate(last=Max("bucket_at")))


def outcome_totals() -> dict[Series, Counts]:
    """Return all that was ever counted, by series without release; each count only grows.

    One statement reads the totals and what is not merged into them yet, so that a merge at this moment changes
    nothing.
    """
    totals: dict[Series, Counts] = {}
    rows = Rollup.objects.using(using()).filter(Q(seconds=TOTAL) | Q(seconds=MINUTE) & ~Q(worker=""))
    numbers = ("runtime_ms", "delay_ms", "runtimes", "delays")
    # Without models, and added in place: there is a row for each process, receiver and ten seconds.
    for queue, signal, receiver, *found in rows.values_list("queue", "signal", "receiver", *OUTCOMES, *numbers):
        total = totals.setdefault(Series("", queue, signal, receiver), Counts())
        for name, count in zip(OUTCOMES, found, strict=False):
            setattr(total, name, getattr(total, name) + count)
        runtime, delay, runtimes, delays = found[len(OUTCOMES) :]
        total.runtime += runtime / 1000
        total.delay += delay / 1000
        if runtimes:
            total.runtimes = list(map(add, total.runtimes, runtimes))
        if delays:
            total.delays = list(map(add, total.delays, delays))
    return totals


def _start_of(row: Rollup, seconds: int) -> datetime:
    start = row.bucket_at.replace(second=0, microsecond=0)
    return start - timedelta(minutes=start.minute % (seconds // MINUTE))


def _series_of(row: Rollup) -> Series:
    return Series(row.release, row.queue, row.signal, row.receiver)


def _counts_of(row: Rollup) -> Counts:
    outcomes = {name: getattr(row, name) for name in OUTCOMES}
    return Counts(
        **outcomes,
        runtime=row.runtime_ms / 1000,
        delay=row.delay_ms / 1000,
        runtimes=row.runtimes or _histogram(),
        delays=row.delays or _histogram(),
    )


def _row(bucket_at: datetime, seconds: int, series: Series, counts: Counts, *, worker: str = "") -> Rollup:
    outcomes = {name: getattr(counts, name) for name in OUTCOMES}
    return Rollup(
        bucket_at=bucket_at,
        seconds=seconds,
        worker=worker,
        **series._asdict(),
        **outcomes,
        runtime_ms=round(counts.runtime * 1000),
        delay_ms=round(counts.delay * 1000),
        runtimes=_written(counts.runtimes),
        delays=_written(counts.delays),
    )


def _written(histogram: Sequence[int]) -> list[int]:
    """Return a histogram as a row has it: an empty one takes no place."""
    return list(histogram) if any(histogram) else []

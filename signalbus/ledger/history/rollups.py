"""Keep the outcomes of deliveries over time: add the counts of a process, and merge those of a period (decision 0046).

A row has one writer and is never changed, so that no worker waits for another. One sweeper replaces rows by their sum:
those of a minute, after eight hours those of ten minutes, after three days those of an hour, and at last all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from django.db import connections, transaction
from django.db.models import Q

from signalbus.ledger.base.clock import LATEST, clock_of
from signalbus.ledger.base.deliveries import using
from signalbus.models import Rollup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

# Upper bounds in seconds of a histogram's counts, 5 ms to 10.6 minutes; the last count is of what took longer.
BOUNDS: Final = tuple(0.005 * 1.5**power for power in range(30))
MINUTE, TEN_MINUTES, HOUR = 60, 600, 3600  # the periods, in seconds
SETTLED = 120.0  # seconds after which all processes have added their counts of a minute
KEEP_MINUTES, KEEP_TEN_MINUTES = 8 * 3600.0, 3 * 86400.0  # seconds
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
        keep: seconds for which the sums of hours are kept, infinite for ever; older ones are added up in one row of
            each receiver.
    """
    now = clock_of(using())
    old = now - timedelta(seconds=min(keep, LATEST))
    steps = (
        (Q(seconds=MINUTE, bucket_at__lt=now - timedelta(seconds=SETTLED)) & ~Q(worker=""), MINUTE),
        (Q(seconds=MINUTE, bucket_at__lt=now - timedelta(seconds=KEEP_MINUTES)), TEN_MINUTES),
        (Q(seconds=TEN_MINUTES, bucket_at__lt=now - timedelta(seconds=KEEP_TEN_MINUTES)), HOUR),
        (Q(seconds=HOUR, bucket_at__lt=old), 0),
    )
    for condition, seconds in steps if keep < math.inf else steps[:-1]:
        while _merge_some(condition, seconds) == BATCH:
            pass


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
        merged = list(found)
        if not seconds:  # one row of each receiver, whatever its release was
            merged += Rollup.objects.using(alias).filter(seconds=0)
        sums: dict[tuple[datetime, Series], Counts] = {}
        for row in merged:
            key = (_bucket_of(row, seconds, merged), _series_of(row, seconds))
            sums.setdefault(key, Counts()).add(_counts_of(row))
        Rollup.objects.using(alias).filter(id__in=[row.pk for row in merged]).delete()
        Rollup.objects.using(alias).bulk_create(
            [_row(bucket, seconds, series, counts) for (bucket, series), counts in sums.items()], batch_size=50
        )
    return len(found)


def _bucket_of(row: Rollup, seconds: int, merged: Sequence[Rollup]) -> datetime:
    if not seconds:
        return max(each.bucket_at for each in merged)
    start = row.bucket_at.replace(second=0, microsecond=0)
    return start - timedelta(minutes=start.minute % (seconds // MINUTE))


def _series_of(row: Rollup, seconds: int) -> Series:
    return Series(row.release if seconds else "", row.queue, row.signal, row.receiver)


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

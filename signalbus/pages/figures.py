"""Read outcomes over time from the rollups: deliveries by minute, hour or half day, and quantiles of their times.

Rollups are kept for receivers, not for deliveries, so that a page costs the same on a large ledger as on a small one.
Processes add what they counted each ten seconds: the youngest figures are that late. Called by the web app's pages.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.db.models import Sum, TextField
from django.db.models.functions import Cast

from signalbus.ledger import operations as ledger
from signalbus.ledger.history import BOUNDS
from signalbus.models import Rollup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.models import QuerySet

PERIODS: Final = (60, 600, 3600)  # seconds; the row of all that is older has 0
RECENT: Final = 300  # seconds over which a rate is averaged
MINUTES: Final = RECENT / 60 + 1  # that the rows of these seconds cover: the current one is not over
COUNTED: Final = ("done", "failed", "dead", "skipped")
MARKS: Final = 5  # releases that a chart names


@dataclass(frozen=True, slots=True)
class Span:
    """A range of time that a page shows.

    Args:
        key: as it stands in the URL.
        seconds: its length.
        step: the seconds of each bar of a chart.
    """

    key: str
    seconds: int
    step: int

    @property
    def text(self) -> str:
        """The length as people read it: "8 h"."""
        return f"{self.key[:-1]} {self.key[-1]}"


SPANS: Final = {
    span.key: span
    for span in (
        Span("1h", 3600, 60), Span("8h", 8 * 3600, 600), Span("3d", 3 * 86400, 3600), Span("30d", 30 * 86400, 43200)
    )
}  # fmt: skip


@dataclass(slots=True)
class Point:
    """The outcomes of one step.

    Args:
        at: its beginning, in UTC.
        done: deliveries that succeeded.
        failed: attempts that failed and are repeated.
        dead: deliveries that are dead.
        skipped: deliveries that were skipped.
    """

    at: datetime
    done: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0


@dataclass(slots=True)
class SpanOutcomes:
    """The outcomes of a span.

    Args:
        points: its steps, the oldest first.
        releases: when each release of the project's code was seen first, in UTC, if that was within the span.
    """

    points: list[Point]
    releases: list[tuple[datetime, str]] = field(default_factory=list)

    def total(self, name: str) -> int:
        """Return the sum of one outcome, "done" for example."""
        return sum(getattr(point, name) for point in self.points)


@dataclass(slots=True)
class Rates:
    """SpanOutcomes a minute, over the last five minutes.

    Args:
        done: deliveries that succeeded.
        failed: attempts that failed, the last of a delivery too.
        by_queue: deliveries that ended, by queue; the default one is empty.
    """

    done: float = 0.0
    failed: float = 0.0
    by_queue: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Times:
    """How long something took.

    Args:
        histogram: how often, by the bounds of `signalbus.ledger.history`.
    """

    histogram: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    @property
    def number(self) -> int:
        """How often it was measured."""
        return sum(self.histogram)

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which a share of them ended: a bound of the histogram; None if there were none.

        Args:
            share: 0.95 for example.
        """
        wanted, seen = share * self.number, 0
        if not self.number:
            return None
        for bound, count in zip(BOUNDS, self.histogram, strict=False):
            seen += count
            if seen >= wanted:
                return float(bound)
        return float("inf")


@dataclass(frozen=True, slots=True)
class ReceiverFigures:
    """The figures of a receiver in a span.

    Args:
        outcomes: its outcomes over time.
        runtimes: how long it ran.
        delays: how long its deliveries waited for their first attempt.
        releases: the sums of its outcomes by release of the project's code, the oldest first.
    """

    outcomes: SpanOutcomes
    runtimes: Times
    delays: Times
    releases: list[tuple[str, Counter[str]]]


def outcomes(span: Span) -> SpanOutcomes:
    """Return the outcomes of all deliveries in a span, by its steps.

    Args:
        span: the span.
    """
    alias = ledger.using()
    start, rows = _rows(span, {})
    points = _points(span, start)
    first: dict[str, datetime] = {}
    for row in _summed(rows, _sums(*COUNTED), "bucket_at", "release").order_by("bucket_at"):
        at = ledger.in_utc(row["bucket_at"], alias)
        _add(points, span, at, row)
        first.setdefault(row["release"], at)
    return SpanOutcomes(points, _new(span, start, first))


def rates() -> Rates:
    """Return what happens in a minute, by the last five."""
    alias = ledger.using()
    found = Rates()
    for row in _summed(_recent(Rollup.objects.using(alias).order_by(), alias), _sums(*COUNTED), "queue"):
        found.done += row["done"] / MINUTES
        found.failed += (row["failed"] + row["dead"]) / MINUTES
        found.by_queue[row["queue"]] = (row["done"] + row["dead"] + row["skipped"]) / MINUTES
    return found


def rates_by_receiver() -> dict[tuple[str, str], float]:
    """Return how many deliveries of each signal to each receiver end in a minute, by the last five; 0 for none lately.

    A receiver that is not in it has never run.
    """
    alias = ledger.using()
    rows = Rollup.objects.using(alias).order_by()
    found = dict.fromkeys(rows.filter(seconds=0).values_list("signal", "receiver").distinct(), 0.0)
    recent = _recent(rows, alias)
    for row in _summed(recent, _sums("done", "dead", "skipped"), "signal", "receiver"):
        ended = row["done"] + row["dead"] + row["skipped"]
        found[row["signal"], row["receiver"]] = ended / MINUTES
    return found


def of_receiver(span: Span, receiver: str) -> ReceiverFigures:
    """Return the outcomes and times of a receiver, from one statement.

    Args:
        span: the span.
        receiver: its id.
    """
    alias = ledger.using()
    start, rows = _rows(span, {"receiver": receiver})
    columns = (*COUNTED, "bucket_at", "release", "runtime_ms")
    texts = {"ran": Cast("runtimes", TextField()), "waited": Cast("delays", TextField())}
    found: list[dict[str, Any]] = list(rows.order_by("bucket_at").values(*columns, **texts))
    points = _points(span, start)
    releases: dict[str, Counter[str]] = {}
    first: dict[str, datetime] = {}
    for row in found:
        at = ledger.in_utc(row["bucket_at"], alias)
        _add(points, span, at, row)
        sums = releases.setdefault(row["release"], Counter())
        sums.update({name: row[name] for name in (*COUNTED, "runtime_ms")})
        first.setdefault(row["release"], at)
    return ReceiverFigures(
        SpanOutcomes(points, _new(span, start, first)),
        _added([row["ran"] for row in found]),
        _added([row["waited"] for row in found]),
        list(releases.items())[: 4 * MARKS],
    )


def totals_by_receiver(span: Span) -> dict[tuple[str, str], Counter[str]]:
    """Return the outcomes of each receiver of each signal.

    Args:
        span: the span.
    """
    _, rows = _rows(span, {})
    sums = _sums("done", "failed", "dead")
    found = _summed(rows, sums, "signal", "receiver")
    return {(row["signal"], row["receiver"]): Counter({name: row[name] for name in sums}) for row in found}


def has_any() -> bool:
    """Return whether anything was ever counted."""
    return Rollup.objects.using(ledger.using()).exists()


def _rows(span: Span, series: dict[str, str]) -> tuple[datetime, QuerySet[Rollup]]:
    """Return the beginning of a span, in UTC, and its rows."""
    alias = ledger.using()
    now = ledger.clock_of(alias)
    utc = ledger.in_utc(now, alias)
    end = datetime.fromtimestamp((utc.timestamp() // span.step + 1) * span.step, UTC)
    start = end - timedelta(seconds=span.seconds)
    rows = Rollup.objects.using(alias).filter(seconds__in=PERIODS, bucket_at__gte=now - (utc - start), **series)
    return start, rows.order_by()


def _recent(rows: QuerySet[Rollup], alias: str) -> QuerySet[Rollup]:
    """Return the rows of the minutes of which a rate is made."""
    since = ledger.clock_of(alias) - timedelta(seconds=RECENT + 60)
    return rows.filter(seconds=60, bucket_at__gte=since)


def _points(span: Span, start: datetime) -> list[Point]:
    return [Point(start + timedelta(seconds=number * span.step)) for number in range(span.seconds // span.step)]


def _add(points: list[Point], span: Span, at: datetime, row: Mapping[str, Any]) -> None:
    """Add the outcomes of a row to the step of its time."""
    number = int((at - points[0].at).total_seconds() // span.step)
    if 0 <= number < len(points):
        for name in COUNTED:
            setattr(points[number], name, getattr(points[number], name) + row[name])


def _new(span: Span, start: datetime, first: dict[str, datetime]) -> list[tuple[datetime, str]]:
    """Return the releases that began within the span: one that was there before began no later than its first step.

    Args:
        span: the span.
        start: its beginning.
        first: when each release was seen first, the oldest first; one without a name is none.
    """
    margin = start + timedelta(seconds=span.step)
    return [(at, release) for release, at in first.items() if release and at > margin][-MARKS:]


def _sums(*names: str) -> dict[str, Any]:
    return {name: Sum(name) for name in names}


def _summed(rows: QuerySet[Rollup], sums: dict[str, Any], *columns: str) -> Any:
    """Return the sums of rows by some columns, as dicts."""
    return rows.values(*columns).annotate(**sums)


def _added(texts: Sequence[str]) -> Times:
    """Return the sum of histograms in JSON, which is read at once; an empty one has counted nothing."""
    added = [sum(counts) for counts in zip(*filter(None, json.loads(f"[{','.join(texts)}]")), strict=True)]
    return Times(added) if added else Times()

"""Make the metrics of the bus from the ledger, each time that somebody asks: totals of outcomes, and what is there now.

`exposition` writes them as text, `prometheus` gives them to prometheus_client. They are the same in every process, so
one web process answers for all workers, and no label names a host.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal, get_args

from signalbus.celery import default_queue
from signalbus.core.printable_text import printable
from signalbus.ledger import operations as ledger
from signalbus.ledger.history import BOUNDS, OUTCOMES, Counts, outcome_totals
from signalbus.ledger.operations import SCHEDULED
from signalbus.models import OPEN_STATES, State
from signalbus.services.queries.queues import queues_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from signalbus.ledger.history import Series
    from signalbus.ledger.operations import CurrentCounts

Kind = Literal["counter", "gauge", "histogram"]
Names = Literal["signalbus", "celery"]
NAMES: Final[tuple[Names, ...]] = get_args(Names)

MOST_SERIES: Final = 500  # pairs of signal and receiver; the others are added up
MOST_VALUES: Final = 100  # of any other label
MOST_CHARS: Final = 200  # of a label's value
OTHERS: Final = "(others)"
WAITING: Final = (*(state.value for state in OPEN_STATES), SCHEDULED)
GENERIC: Final = {"hostname": "generic"}  # as celery-exporter has it where no host is named


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a metric.

    Args:
        name: the metric's, or that of a part of a histogram.
        labels: names and values.
        value: the value.
    """

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A metric with all its values.

    Args:
        name: as it is written; a counter's ends in ``_total``.
        kind: counter, gauge or histogram.
        text: what it is, for people.
        readings: its values.
    """

    name: str
    kind: Kind
    text: str
    readings: list[Reading] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a value."""
        self._read(self.name, labels, value)

    def add_histogram(self, counts: Sequence[int], total: float, **labels: str) -> None:
        """Add a histogram: a count for each of the ledger's bounds and one for those above, and the sum of all."""
        bounds = [*(f"{bound:.6g}" for bound in BOUNDS), "+Inf"]
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            self._read(f"{self.name}_bucket", {**labels, "le": bound}, count)
        self._read(f"{self.name}_sum", labels, total)
        self._read(f"{self.name}_count", labels, sum(counts))

    def _read(self, name: str, labels: Mapping[str, str], value: float) -> None:
        short = {label: printable(text, MOST_CHARS) for label, text in labels.items()}
        self.readings.append(Reading(name, short, value))


def families(names: Names = "signalbus") -> list[MetricFamily]:
    """Read the ledger, and return the metrics.

    Args:
        names: "signalbus", or "celery" for the names of celery-exporter, which dashboards for Celery know.

    Raises:
        DatabaseError: the ledger cannot be read.
    """
    totals, counts = outcome_totals(), ledger.current_counts()
    if names == "celery":
        return [*_tasks(totals), *_celery_workers(counts)]
    return [*_outcomes(totals), *_deliveries(counts), *_workers(counts)]


def _outcomes(totals: Mapping[Series, Counts]) -> Iterator[MetricFamily]:
    """Yield the outcomes of deliveries, by signal and receiver."""
    outcomes = MetricFamily("signalbus_deliveries_total", "counter", "Outcomes of deliveries; failed ones run again.")
    runtimes = MetricFamily("signalbus_delivery_runtime_seconds", "histogram", "How long attempts took.")
    delays = MetricFamily("signalbus_delivery_delay_seconds", "histogram", "From send() to the first attempt.")
    by_receiver = _summed(totals, lambda series: (series.signal, series.receiver))
    for (signal, receiver), counts in by_receiver.items():
        labels = {"signal": signal, "receiver": receiver}
        for outcome in OUTCOMES:
            outcomes.add(getattr(counts, outcome), **labels, outcome=outcome)
        runtimes.add_histogram(counts.runtimes, counts.runtime, **labels)
        delays.add_histogram(counts.delays, counts.delay, **labels)
    yield from (outcomes, runtimes, delays)


def _deliveries(counts: CurrentCounts) -> Iterator[MetricFamily]:
    """Yield what waits, and what needs a person."""
    waiting = MetricFamily("signalbus_waiting", "gauge", "Open deliveries; scheduled ones are not due yet.")
    oldest = MetricFamily("signalbus_oldest_waiting_seconds", "gauge", "How long the oldest waits for a worker.")
    by_state: Counter[tuple[str, str]] = Counter()
    ages: dict[str, float] = defaultdict(float)
    for (queue, state), count in counts.waiting.items():
        by_state[_queue(queue), state] += count
    for queue, age in counts.oldest.items():
        ages[_queue(queue)] = max(ages[_queue(queue)], age)
    found = dict.fromkeys([*queues_of({}), *sorted(queue for queue, _ in by_state)])
    for queue in list(found)[:MOST_VALUES]:
        oldest.add(ages[queue], queue=queue)
        for state in WAITING:
            waiting.add(by_state[queue, state], queue=queue, state=state)
    yield from (waiting, oldest)
    yield _one("signalbus_dead", "Dead deliveries, which wait for a person.", counts.dead)
    parked = sum(count for (_, state), count in by_state.items() if state == State.PARKED)
    yield _one("signalbus_parked", "Deliveries that wait for a worker with newer code or keys.", parked)
    yield _one(
        "signalbus_refused_total", "Texts without a valid signature, with their copies.", counts.refused, "counter"
    )
    yield _one("signalbus_long_runs", "Deliveries that have been running for more than a second.", counts.runs)
    yield _one("signalbus_longest_run_seconds", "How long the longest of them has been running.", counts.longest_run)
    paused = MetricFamily("signalbus_paused", "gauge", "1 for each receiver, signal and queue that is paused.")
    for kind, name in counts.paused[:MOST_VALUES]:
        paused.add(1, kind=kind, name=name)
    yield paused


def _workers(counts: CurrentCounts) -> Iterator[MetricFamily]:
    """Yield which workers are alive, and what they can run."""
    workers = MetricFamily("signalbus_workers", "gauge", "Workers that were alive in the last minute.")
    for release, count in (counts.workers or Counter({"": 0})).most_common(MOST_VALUES):
        workers.add(count, release=release)
    slots = MetricFamily("signalbus_slots", "gauge", "Deliveries that the workers of a queue run at a time.")
    for queue in list(dict.fromkeys([*queues_of({}), *sorted(counts.slots)]))[:MOST_VALUES]:
        slots.add(counts.slots[queue], queue=queue)
    yield from (workers, slots)
    if counts.sweep_age is not None:
        yield _one(
            "signalbus_sweep_age_seconds", "Since a sweeper last purged; one does each half minute.", counts.sweep_age
        )


def _tasks(totals: Mapping[Series, Counts]) -> Iterator[MetricFamily]:
    """Yield what became of attempts under celery-exporter's names: a receiver is a task, an attempt a run of it."""
    texts = {
        "sent": "Attempts that were begun.",
        "received": "Attempts that were begun.",
        "started": "Attempts that were begun.",
        "succeeded": "Deliveries that are done, or were skipped.",
        "failed": "Deliveries that are dead.",
        "retried": "Attempts that failed, and are repeated.",
    }
    tasks = {event: MetricFamily(f"celery_task_{event}_total", "counter", text) for event, text in texts.items()}
    runtimes = MetricFamily("celery_task_runtime", "histogram", "How long attempts took.")
    waits = MetricFamily("celery_task_queue_wait_time", "histogram", "From send() to the first attempt.")
    for (receiver, queue), counts in _summed(totals, lambda series: (series.receiver, _queue(series.queue))).items():
        labels = {"name": receiver, "queue_name": queue, **GENERIC}
        attempts = sum(getattr(counts, outcome) for outcome in OUTCOMES)
        for event in ("sent", "received", "started"):
            tasks[event].add(attempts, **labels)
        tasks["succeeded"].add(counts.done + counts.skipped, **labels)
        tasks["failed"].add(counts.dead, **labels, exception="unknown")
        tasks["retried"].add(counts.failed, **labels)
        runtimes.add_histogram(counts.runtimes, counts.runtime, **labels)
        waits.add_histogram(counts.delays, counts.delay, **labels)
    yield from (*tasks.values(), runtimes, waits)


def _celery_workers(counts: CurrentCounts) -> Iterator[MetricFamily]:
    """Yield queues and workers under celery-exporter's names."""
    alive = counts.workers.total()
    up = MetricFamily("celery_worker_up", "gauge", "1 while a worker is alive.")
    up.add(min(1, alive), **GENERIC)
    active = MetricFamily("celery_worker_tasks_active", "gauge", "Deliveries that have been running for over a second.")
    active.add(counts.runs, **GENERIC)
    length = MetricFamily("celery_queue_length", "gauge", "Deliveries in the ledger that wait for a worker.")
    workers = MetricFamily("celery_active_worker_count", "gauge", "Living workers that consume a queue.")
    processes = MetricFamily("celery_active_process_count", "gauge", "Deliveries that they run at a time.")
    lengths: Counter[str] = Counter()
    for (queue, state), count in counts.waiting.items():
        if state in {State.PENDING, State.PUBLISHED}:
            lengths[_queue(queue)] += count
    for queue in list(dict.fromkeys([*queues_of({}), *sorted({*lengths, *counts.slots})]))[:MOST_VALUES]:
        length.add(lengths[queue], queue_name=queue)
        workers.add(counts.consumers[queue], queue_name=queue)
        processes.add(counts.slots[queue], queue_name=queue)
    yield from (up, active, length, workers, processes)


def _one(name: str, text: str, value: float, kind: Kind = "gauge") -> MetricFamily:
    family = MetricFamily(name, kind, text)
    family.add(value)
    return family


def _summed(
    totals: Mapping[Series, Counts], labels_of: Callable[[Series], tuple[str, str]]
) -> dict[tuple[str, str], Counts]:
    """Add up the counts of series with the same two labels; those beyond the limit are added up as others."""
    summed: dict[tuple[str, str], Counts] = {}
    for series in sorted(totals):
        labels = labels_of(series)
        if labels not in summed and len(summed) >= MOST_SERIES:
            labels = (OTHERS, OTHERS)
        summed.setdefault(labels, Counts()).add(totals[series])
    return summed


def _queue(name: str) -> str:
    return name or default_queue()

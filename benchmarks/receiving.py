"""How fast a real worker empties a queue that was filled before it started."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from benchmarks import signals, stock, tally
from benchmarks.measure import Line, summarize
from benchmarks.sending import BATCH, QUEUES
from signalbus import conf
from signalbus.receiving.batch import deliver
from signalbus.sending import outbox
from tasks.admissions.models import Cohort
from tests.servers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from signalbus import Signal

CONCURRENCY = 2
PATIENCE = 120.0  # seconds for a worker to empty its queue


@dataclass(frozen=True, slots=True)
class Race:
    """A signal's receiver, and a task that does the same.

    Args:
        title: what both do.
        signal: what is sent.
        payload: with it.
        task: the stock app's.
        together: how many sends share a transaction.
        target: the lowest ratio that was promised.
    """

    title: str
    signal: Signal
    payload: dict[str, Any]
    task: Any
    together: int = 1
    target: float | None = 0.9


def races(cohort: Cohort) -> list[Race]:
    """List what is measured."""
    flat = {"cohort_id": cohort.pk, "created": True}
    row = {"instance": cohort, "created": True}
    together = f", sent by {BATCH} in a transaction"
    return [
        Race("nothing", signals.plain, flat, stock.nothing),
        Race("nothing" + together, signals.plain, flat, stock.nothing, BATCH),
        Race("nothing; both in a transaction", signals.atomic, flat, stock.nothing_atomic),
        Race("nothing; only ours in a transaction", signals.atomic, flat, stock.nothing, target=None),
        Race("a row; both in a transaction", signals.fetched, row, stock.fetch_atomic),
        Race("a row; only ours in a transaction", signals.fetched, row, stock.fetch),
        Race("a row; only ours in a transaction" + together, signals.fetched, row, stock.fetch, BATCH),
    ]


class Side:
    """A worker, and the slices of messages that wait for it.

    Args:
        app: what stands after ``celery -A``.
        settings: the module of its project's settings.
        queue: the one that it consumes.
        broker: a client of the server that the messages go through.
    """

    def __init__(self, app: str, settings: str, queue: str, broker: redis.Redis) -> None:
        self.queue = queue
        self.broker = broker
        self.directory = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ["BENCH_DIRECTORY"]))
        self.counts = self.directory / "tally"
        self.counts.mkdir()
        self.worker = Worker(
            self.directory,
            "--loglevel",
            "WARNING",
            app=app,
            concurrency=CONCURRENCY,
            environment={"DJANGO_SETTINGS_MODULE": settings, "BENCH_TALLY": str(self.counts)},
        )

    def put_aside(self, number: int) -> None:
        """Keep what is on the queue for later."""
        self.broker.rename(self.queue, f"{self.queue}:{number}")

    def rate(self, number: int, messages: int) -> float:
        """Give the worker a slice, all in one moment; return its rate from the first completion to the last."""
        self.broker.rename(f"{self.queue}:{number}", self.queue)
        deadline = time.monotonic() + PATIENCE
        while (done := tally.read(self.counts))[0] < messages:
            if time.monotonic() > deadline or self.worker.pid is None:
                raise RuntimeError(f"{self.queue}: {done[0]} of {messages} messages are done:\n{self.worker.log}")
            time.sleep(0.02)
        tally.reset(self.counts)
        return (messages - 1) / done[1]


class Receiving:
    """Measures workers: both are there, and get slices of messages by turns.

    Args:
        cohort: the row that messages refer to.
        broker: a client of the server that the messages go through.
        messages: how many are in a slice; a multiple of 100.
        rounds: how many slices each side gets.
    """

    def __init__(self, cohort: Cohort, broker: redis.Redis, messages: int, rounds: int) -> None:
        self.cohort = cohort
        self.broker = broker
        self.messages = messages
        self.rounds = rounds

    def lines(self, chosen: Callable[[str], bool]) -> Iterator[Line]:
        """Measure each race whose title is chosen."""
        for race in races(self.cohort):
            if chosen(race.title):
                yield summarize(f"worker: {race.title}", self._run(race), "/s", race.target)

    def _run(self, race: Race) -> list[tuple[float, float]]:
        ours = Side("signalbus", "benchmarks.settings", QUEUES[0], self.broker)
        other = Side("benchmarks.stock", "benchmarks.stock_settings", QUEUES[1], self.broker)
        for number in range(self.rounds + 1):
            self._fill(race)
            ours.put_aside(number)
            other.put_aside(number)
        rates: list[dict[Side, float]] = []
        with ExitStack() as stack:
            for side in (ours, other):
                stack.callback(side.worker.stop)
                side.worker.start()
            for number in range(self.rounds + 1):
                sides = (ours, other) if number % 2 else (other, ours)
                rates.append({side: side.rate(number, self.messages) for side in sides})
        return [(rate[ours], rate[other]) for rate in rates[1:]]  # the first is the start of both

    def _fill(self, race: Race) -> None:
        for _ in range(self.messages // race.together):
            with transaction.atomic():
                for _ in range(race.together):
                    race.signal.send(sender=Cohort, **race.payload)
        for _ in range(self.messages):
            race.task.delay("admissions.Cohort", self.cohort.pk, True)

    def costs(self) -> Iterator[str]:
        """Count what a delivery asks the database."""
        once = {race.signal.name: race for race in races(self.cohort)}
        for race in once.values():
            texts = self._texts(race)
            deliver(texts)
            with CaptureQueriesContext(connection) as queries:
                deliver(texts)
            statements = ", ".join(query["sql"].split()[0] for query in queries.captured_queries) or "none"
            yield f"a delivery ({race.signal.name}): {len(queries)} statements ({statements})"

    @staticmethod
    def _texts(race: Race) -> list[str]:
        sent: list[Any] = []
        token = outbox.diverted.set(sent.extend)
        try:
            race.signal.send(sender=Cohort, **race.payload)
        finally:
            outbox.diverted.reset(token)
        return [conf.signer().sign(outgoing.body) for outgoing in sent]

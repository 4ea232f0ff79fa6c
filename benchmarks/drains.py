"""Measures how fast a real worker drains a queue that was filled before, beside stock Celery's and the peers'."""

from __future__ import annotations

import statistics
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import connection

from benchmarks import signals, stock_celery, workers
from benchmarks.comparison import at_least, summarize
from benchmarks.peers import EMISOR, ON_THE_BROKER, ON_THE_DATABASE
from benchmarks.peers.sides import PeerSide
from benchmarks.receivers import UNCONSUMED
from benchmarks.rows import Part, Row
from benchmarks.sides import race
from tasks.admissions.models import Cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.comparison import Comparison, Goal
    from benchmarks.peers import Peer
    from benchmarks.sides import Side
    from signalbus import Signal

MESSAGES = 5000  # in a slice of ours
OTHERS = 1500  # in one of stock Celery's: as long a time
TOGETHER = 1000  # of a send_many()
IN_BATCHES = 20_000
OURS = ("signalbus", "Celery")


@dataclass(frozen=True, slots=True)
class Work:
    """A signal's receiver, and a task with the same work.

    Args:
        title: what both do.
        signal: what is sent.
        task: of the plain Celery app.
        goal: how many times as fast ours is to be, at least.
        row: whether the message refers to a row.
    """

    title: str
    signal: Signal
    task: Any
    goal: float
    row: bool = False

    def payload(self, cohort: Cohort) -> dict[str, Any]:
        """Return the payload to send."""
        return {"instance": cohort, "created": True} if self.row else {"cohort_id": cohort.pk, "created": True}


WORKS = (
    Work("nothing", signals.plain, stock_celery.nothing, 8),
    Work("nothing; both in a transaction", signals.atomic, stock_celery.nothing_atomic, 7),
    Work("a row fetched; both in a transaction", signals.fetched, stock_celery.fetch_atomic, 5, row=True),
)


class Drains(Part):
    """Measures workers in a race, which get slices of messages in turn."""

    def rows(self) -> Iterator[Row]:
        """List the measurements."""
        for pool in workers.POOLS:
            for work in WORKS:
                yield Row(f"drain, {pool}: {work.title}", partial(self._beside_celery, pool, work))
        yield Row("drain, prefork: nothing, sent in batches", self._batches)
        if self.size.peers:
            yield Row("drain beside the peers", self._beside_peers)
            goals = {EMISOR.name: (at_least(10), at_least(7))}
            yield Row("durable drain, sqlite", partial(self._durable, "sqlite", [EMISOR], goals))
            goals = {"procrastinate": (at_least(5), at_least(1))}
            yield Row("durable drain, postgres", partial(self._durable, "postgres", ON_THE_DATABASE, goals))

    def _one_by_one(self, cohort: Cohort, work: Work) -> tuple[Callable[[int], None], Callable[[int], None]]:
        """Return the functions that send messages of ours, and of Celery."""
        payload = work.payload(cohort)

        def ours(messages: int) -> None:
            for _ in range(messages):
                work.signal.send(sender=Cohort, **payload)

        def other(messages: int) -> None:
            for _ in range(messages):
                work.task.delay("admissions.Cohort", cohort.pk, True)

        return ours, other

    def _ours(self, pool: str, fill: Callable[[int], None], messages: int = MESSAGES, **options: Any) -> Side:
        return workers.ours(self.servers, pool, fill, self.size.of(messages, 100), **options)

    def _celery(self, pool: str, fill: Callable[[int], None]) -> Side:
        return workers.stock(self.servers, pool, fill, self.size.of(OTHERS, 50))

    def _beside_celery(self, pool: str, work: Work) -> Iterator[Comparison]:
        with self.servers.database("sqlite") as cohort:
            fill, other = self._one_by_one(cohort, work)
            sides = [self._ours(pool, fill), self._celery(pool, other)]
            self._race(sides)
        yield _compare(f"drain, {pool}: {work.title} ÷ Celery", sides[0], sides[1], at_least(work.goal))

    def _batches(self) -> Iterator[Comparison]:
        with self.servers.database("sqlite") as cohort:
            other = self._one_by_one(cohort, WORKS[0])[1]
            fill = partial(_send_many, signals.plain, cohort)
            sides = [self._ours("prefork", fill, IN_BATCHES), self._celery("prefork", other)]
            self._race(sides)
        yield _compare("drain, prefork: nothing, sent in batches ÷ Celery", sides[0], sides[1], at_least(20))

    def _beside_peers(self) -> Iterator[Comparison]:
        goals = {"huey": at_least(2), "dramatiq": at_least(2), "taskiq": at_least(2)}
        with self.servers.database("sqlite") as cohort:
            fill, other = self._one_by_one(cohort, WORKS[0])
            pools = {pool: self._ours(pool, fill, consumed=f"ours-{pool}") for pool in ("prefork", "solo")}
            others = [self._celery("prefork", other), *self._peers(ON_THE_BROKER)]
            self._race([*pools.values(), *others])
        best = max(pools, key=lambda pool: statistics.median(pools[pool].rates))
        for side in others:
            if side.slices:
                yield _compare(
                    f"drain, best pool ({best}): nothing ÷ {side.name}", pools[best], side, goals.get(side.name)
                )

    def _durable(
        self, kind: str, peers: Sequence[Peer], goals: Mapping[str, tuple[Goal, Goal]]
    ) -> Iterator[Comparison]:
        with self.servers.database(kind) as cohort, _quick_commits():
            single = self._ours("prefork", partial(_send_each, signals.stored, cohort), **_unconsumed("ours-single"))
            fill = partial(_send_many, signals.stored, cohort)
            batches = self._ours("prefork", fill, IN_BATCHES, **_unconsumed("ours-batches"))
            others = self._peers(peers, kind)
            self._race([single, batches, *others])
        for side in others:
            if side.slices:
                one, many = goals.get(side.name, (None, at_least(1)))
                yield _compare(f"durable drain, {kind}: one by one ÷ {side.name}", single, side, one)
                yield _compare(f"durable drain, {kind}: in batches ÷ {side.name}", batches, side, many)

    def _peers(self, peers: Sequence[Peer], kind: str | None = None) -> list[Side]:
        """Return the installed peers, and name the missing ones.

        Args:
            peers: which ones.
            kind: of the database that each gets.
        """
        sides: list[Side] = []
        for peer in peers:
            reason = peer.missing()
            if reason is not None:
                self.servers.left_out[peer.name] = reason
                continue
            url = kind and self.servers.create_empty(kind)
            sides.append(PeerSide(peer, self.servers, self.size.of(peer.messages, 20), url))
        return sides

    def _race(self, sides: Sequence[Side]) -> None:
        """Run the race; leave out a peer that fails, with the reason; without our side there is no result."""
        for failed in race(sides, self.size.rounds):
            if failed.name in OURS:
                raise failed
            self.servers.left_out[failed.name] = str(failed)


def _compare(title: str, ours: Side, other: Side, goal: Goal | None) -> Comparison:
    cpu = (statistics.median(ours.cpus), statistics.median(other.cpus))
    return summarize(title, ours.rates, other.rates, "/s", goal, cpu=cpu)


def _unconsumed(queue: str) -> dict[str, Any]:
    return {"keys": (UNCONSUMED,), "consumed": queue}


def _send_each(signal: Signal, cohort: Cohort, messages: int) -> None:
    for _ in range(messages):
        signal.send(sender=Cohort, cohort_id=cohort.pk, created=True)


def _send_many(signal: Signal, cohort: Cohort, messages: int) -> None:
    for start in range(0, messages, TOGETHER):
        count = min(TOGETHER, messages - start)
        signal.send_many(Cohort, [{"cohort_id": cohort.pk, "created": True}] * count)


@contextmanager
def _quick_commits() -> Iterator[None]:
    """Let the sender, which is not measured here, commit without waiting for the disk."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")
    yield

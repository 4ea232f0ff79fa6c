"""Measures the costs of the ledger: rows at a send, the receipt at a delivery; empty, and with a million rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.db import connection, transaction

from benchmarks import signals
from benchmarks.comparison import at_most, summarize
from benchmarks.deliveries import Waiting
from benchmarks.rows import Part, Row
from benchmarks.servers import QUEUES, cohort
from benchmarks.timing import by_turns, each, repeated
from signalbus.ledger import sends as ledger
from signalbus.sending import outbox
from signalbus.wire.message import uuid7
from tasks.admissions.models import Academy, Cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.comparison import Comparison, Goal
    from benchmarks.timing import Times
    from signalbus.sending.outgoing import Outgoing

ROWS = 1000  # of a send_many()
SENDS = 50  # in one transaction
TOGETHER = 100  # texts in one Celery message
SETTLED = 1_000_000


class LedgerCosts(Part):
    """Measures the ledger's writes, beside ordinary rows and beside signals without rows."""

    def rows(self) -> Iterator[Row]:
        """List the measurements."""
        for kind in ("sqlite", "postgres"):
            yield Row(f"rows of a durable send(), {kind}", partial(self._sends, kind))
            yield Row(f"rows of a durable send_many(), {kind}", partial(self._many, kind))
            yield Row(f"a durable delivery, {kind}", partial(self._deliveries, kind))
            yield Row(f"a million rows settled, {kind}", partial(self._settled, kind))

    def _sends(self, kind: str) -> Iterator[Comparison]:
        with self.servers.database(kind) as row:
            ways = {
                "one": _in_a_transaction(_send_one(row), SENDS),
                "three": _in_a_transaction(_send_three(row), SENDS),
                "row": _in_a_transaction(_create, SENDS),
            }
            times = by_turns(ways, calls=self.size.of(10), rounds=2 * self.size.rounds)
        times = {name: each(numbers, SENDS) for name, numbers in times.items()}
        for way, to, goal in (("one", "", 1.3), ("three", " to three", 1.5)):
            title = f"durable send(){to} ÷ one row created, both in a transaction, {kind}"
            yield summarize(title, times[way], times["row"], "us", at_most(goal))

    def _many(self, kind: str) -> Iterator[Comparison]:
        number = self.size.of(ROWS, 10)
        with self.servers.database(kind) as row:
            send = _send_many(row, number)
            outgoing = _captured(send)

            def record() -> None:
                ledger.record(outgoing, using=ledger.using())

            def create() -> None:
                Academy.objects.bulk_create([_ordinary() for _ in range(number)])

            ways = {
                name: _in_a_transaction(way, 1) for name, way in (("rows", record), ("all", send), ("other", create))
            }
            times = by_turns(ways, calls=self.size.of(5), rounds=self.size.rounds)
        times = {name: each(numbers, number) for name, numbers in times.items()}
        for way, title, goal in (("rows", "rows of send_many()", 1.0), ("all", "whole send_many()", 3.0)):
            yield summarize(
                f"{title} of {number:,} ÷ bulk_create(), each, {kind}", times[way], times["other"], "us", at_most(goal)
            )

    def _deliveries(self, kind: str) -> Iterator[Comparison]:
        goals: dict[int, Goal | None] = {1: at_most(1.4), TOGETHER: at_most(0.9) if kind == "postgres" else None}
        for together, goal in goals.items():
            with self.servers.database(kind):
                durable, fleeting = (
                    Waiting(self.servers.client, signal, together) for signal in (signals.durable, signals.fleeting)
                )
                calls = self.size.of(400 // together)
                times: Times = {"durable": [], "fleeting": []}
                for _ in range(2 * self.size.rounds):
                    durable.fill(2 * calls)  # of two rounds: one is to warm up
                    fleeting.fill(2 * calls)
                    found = by_turns({"durable": durable, "fleeting": fleeting}, calls=calls, rounds=1)
                    for name, numbers in found.items():
                        times[name] += each(numbers, together)
            title = f"a durable delivery ÷ durable=False, {together} together, {kind}"
            yield summarize(title, times["durable"], times["fleeting"], "us", goal)

    def _settled(self, kind: str) -> Iterator[Comparison]:
        settled = self.size.of(SETTLED)
        for way, (full, empty) in self.beside(kind, [settled, 0]).items():
            yield summarize(f"{way}: {settled:,} rows settled ÷ none, {kind}", full, empty, "us", at_most(1.1))

    def beside(self, kind: str, counts: Sequence[int]) -> dict[str, list[list[float]]]:
        """Measure the same in ledgers with more and more rows, in turn.

        Args:
            kind: of the databases.
            counts: of the rows that are settled in each.

        Returns:
            For each thing that is done, for each ledger, the microseconds that it takes: a number for each round.
        """
        urls = [self.servers.create(kind) for _ in counts]
        for url, count in zip(urls, counts, strict=True):
            with self.servers.using(url):
                settle(count)
        found: dict[str, list[list[float]]] = {}
        for number in range(2 * self.size.rounds):
            for place, url in list(enumerate(urls))[:: 1 if number % 2 else -1]:
                with self.servers.using(url):
                    for way, took in self._once().items():
                        found.setdefault(way, [[] for _ in urls])[place].append(took)
        return found

    def _once(self) -> dict[str, float]:
        """Return the microseconds of each operation in the present database."""
        row = cohort()
        alone, together = (Waiting(self.servers.client, signals.durable, number) for number in (1, TOGETHER))
        calls = self.size.of(30)
        alone.fill(2 * calls)
        together.fill(2 * calls)
        ways: dict[str, Callable[[], object]] = {
            "durable send()": _in_a_transaction(_send_one(row), SENDS),
            "durable send_many()": _in_a_transaction(_send_many(row, TOGETHER), 1),
            "a durable delivery": alone,
            "durable deliveries in a batch": together,
        }
        numbers = (SENDS, TOGETHER, 1, TOGETHER)
        found = by_turns(ways, calls=calls, rounds=1)
        self.servers.client.delete(*QUEUES)
        return {name: found[name][0] / number for name, number in zip(ways, numbers, strict=True)}


def _send_one(row: Cohort) -> Callable[[], object]:
    return partial(signals.kept.send, sender=Cohort, cohort_id=row.pk, created=True)


def _send_three(row: Cohort) -> Callable[[], object]:
    return partial(signals.kept_by_three.send, sender=Cohort, cohort_id=row.pk, created=True)


def _send_many(row: Cohort, number: int) -> Callable[[], object]:
    return partial(signals.kept.send_many, Cohort, [{"cohort_id": row.pk, "created": True}] * number)


def _in_a_transaction(function: Callable[[], object], times: int) -> Callable[[], None]:
    """Call a function in a transaction that leaves nothing."""

    def call() -> None:
        with transaction.atomic():
            repeated(function, times)()
            transaction.set_rollback(True)

    return call


def _ordinary() -> Academy:
    return Academy(name="an ordinary row", slug=uuid7().hex)


def _create() -> None:
    _ordinary().save(force_insert=True)


def _captured(send: Callable[[], object]) -> list[Outgoing]:
    sent: list[Outgoing] = []
    token = outbox.diverted.set(sent.extend)
    try:
        send()
    finally:
        outbox.diverted.reset(token)
    return sent


def settle(count: int) -> None:
    """Fill the ledger with done messages and a delivery of each, in SQL, because it is faster.

    Args:
        count: of each.
    """
    on_postgres = connection.vendor == "postgresql"
    id_ = "lpad(to_hex(n), 32, '0')::uuid" if on_postgres else "printf('%%032x', n)"
    numbers = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < %s)"
    now = "CURRENT_TIMESTAMP"
    messages = f"""{numbers}
        INSERT INTO signalbus_message (id, signal, text, sealed, created_at)
        SELECT {id_}, 'benchmarks.old', %s, {"false" if on_postgres else "0"}, {now} FROM number"""
    deliveries = f"""{numbers}
        INSERT INTO signalbus_delivery (id, message_id, receiver, queue, state, attempts, allowance, due_at, error,
            traceback, created_at, ended_at)
        SELECT {id_}, {id_}, 'old', '', 'done', 1, 0, {now}, '', '', {now}, {now} FROM number"""
    with connection.cursor() as cursor:
        if count:
            cursor.execute(messages, [count, "x" * 300])
            cursor.execute(deliveries, [count])
        cursor.execute("ANALYZE")

"""Measures the costs of a send, beside a bare push to Redis, Celery's ``delay`` and Django's own signals."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from django.db import transaction

from benchmarks import declared_signals, signals, stock_celery
from benchmarks.comparison import at_least, at_most, summarize
from benchmarks.rows import Part, Row
from benchmarks.servers import QUEUES
from benchmarks.timing import by_turns, each, repeated
from tasks.admissions.models import Academy, Cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.comparison import Comparison

BATCH = 1000
DELAYS = 100  # in a block beside a batch: as many would take most of the time
LOCAL = 50  # calls that never leave the process, in one look at the clock
RAW = "raw"  # the list that raw items go to


class Sending(Part):
    """Measures sends of one instance."""

    def rows(self) -> Iterator[Row]:
        """List the measurements."""
        yield Row("send(), durable=False", self._alone)
        yield Row("send() of a declared payload", self._declared)
        yield Row("send_many() and 1,000 in a transaction", self._together)
        for kind in ("sqlite", "postgres"):
            yield Row(f"durable send(), {kind}", partial(self._durable, kind))
        yield Row("send() that stays here", self._local)

    def _send(self, cohort: Cohort) -> None:
        signals.fetched.send(sender=Cohort, instance=cohort, created=True)

    def _delay(self, cohort: Cohort) -> None:
        stock_celery.fetch_atomic.delay("admissions.Cohort", cohort.pk, True)

    def _item(self, send: Callable[[], object]) -> bytes:
        """Return the item that a send puts on our queue."""
        self.servers.empty()
        send()
        item: bytes = self.servers.client.lindex(QUEUES[0], 0)
        self.servers.empty()
        return item

    def _empty(self) -> None:
        self.servers.client.delete(RAW, *QUEUES)

    def _alone(self) -> Iterator[Comparison]:
        with self.servers.database("sqlite") as cohort:
            send = partial(self._send, cohort)
            item = self._item(send)
            ways = {"raw": partial(self.servers.client.lpush, RAW, item), "delay": partial(self._delay, cohort)}
            times = by_turns(
                ways | {"send": send}, calls=self.size.of(200), rounds=3 * self.size.rounds, between=self._empty
            )
        size = f"an item of {len(item) / 1000:.1f} KB"
        yield summarize(f"send() ÷ raw LPUSH of {size}", times["send"], times["raw"], "us", at_most(1.3))
        yield summarize(
            "Celery's .delay() ÷ send()", times["send"], times["delay"], "us", at_least(8), upside_down=True
        )

    def _declared(self) -> Iterator[Comparison]:
        with self.servers.database("sqlite") as cohort:
            ways = {
                name: partial(signal.send, sender=Cohort, instance=cohort, created=True)
                for name, signal in (("undeclared", signals.fetched), ("declared", declared_signals.declared))
            }
            times = by_turns(ways, calls=self.size.of(200), rounds=3 * self.size.rounds, between=self._empty)
        yield summarize(
            "send() of a declared payload ÷ send()", times["declared"], times["undeclared"], "us", at_most(1.05)
        )

    def _together(self) -> Iterator[Comparison]:
        number = self.size.of(BATCH, 10)

        with self.servers.database("sqlite") as cohort:
            payloads = [{"instance": cohort, "created": True}] * number

            def in_a_transaction() -> None:
                with transaction.atomic():
                    for _ in range(number):
                        self._send(cohort)

            times = by_turns(
                {
                    "delay": repeated(partial(self._delay, cohort), DELAYS),
                    "send_many": partial(signals.fetched.send_many, Cohort, payloads),
                    "transaction": in_a_transaction,
                },
                calls=self.size.of(5),
                rounds=self.size.rounds,
                between=self._empty,
            )
        delay = each(times["delay"], DELAYS)
        for title, way, goal in (
            (f"Celery's .delay() ÷ send_many() of {number:,}, each", "send_many", 45),
            (f"Celery's .delay() ÷ send(), {number:,} in a transaction, each", "transaction", 25),
        ):
            yield summarize(title, each(times[way], number), delay, "us", at_least(goal), upside_down=True)

    def _durable(self, kind: str) -> Iterator[Comparison]:
        with self.servers.database(kind) as cohort:
            send = partial(signals.kept.send, sender=Cohort, cohort_id=cohort.pk, created=True)
            item = self._item(send)

            def row_and_push() -> None:
                Academy.objects.create(name="an ordinary row", slug=uuid4().hex)
                self.servers.client.lpush(RAW, item)

            times = by_turns(
                {"send": send, "row": row_and_push},
                calls=self.size.of(100),
                rounds=2 * self.size.rounds,
                between=self._empty,
            )
        title = f"durable send() ÷ (a row committed + raw LPUSH), {kind}"
        yield summarize(title, times["send"], times["row"], "us", at_most(1.3))

    def _local(self) -> Iterator[Comparison]:
        with self.servers.database("sqlite") as cohort:
            payload = {"sender": Cohort, "instance": cohort, "created": True}
            for title, ours, other, goal in (
                ("send() without receivers ÷ Django's", signals.unheard, signals.django_unheard, 1.5),
                ("send() to an inline receiver ÷ Django's", signals.inline, signals.django_inline, 2.0),
            ):
                ways = {
                    "ours": repeated(partial(ours.send, **payload), LOCAL),
                    "other": repeated(partial(other.send, **payload), LOCAL),
                }
                times = by_turns(ways, calls=self.size.of(100), rounds=3 * self.size.rounds)
                yield summarize(title, each(times["ours"], LOCAL), each(times["other"], LOCAL), "us", at_most(goal))

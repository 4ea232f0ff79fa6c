"""What the ledger costs: its rows at a send, its receipt at a delivery."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from benchmarks import signals
from benchmarks.deliveries import Deliveries
from benchmarks.measure import compare
from signalbus import ledger
from signalbus.models import Delivery, State, StoredMessage
from signalbus.sending import outbox
from signalbus.wire.message import delivery_id, uuid7
from tasks.admissions.models import Academy, Cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from benchmarks.measure import Line
    from signalbus.sending.composing import Outgoing

ROWS = 1000
BATCH = 100
SETTLED = 1_000_000


class Keeping:
    """Measures what is written, beside ordinary rows.

    Args:
        cohort: the row that messages refer to.
        broker: a client of the server that the messages go to.
        scale: how many times as many calls as a quick look takes.
        rounds: of deliveries.
    """

    def __init__(self, cohort: Cohort, broker: redis.Redis, scale: float, rounds: int) -> None:
        self.cohort = cohort
        self.deliveries = Deliveries(broker, rounds)
        self.calls = max(1, int(100 * scale))
        self.settled = int(SETTLED * min(1.0, scale))

    def lines(self) -> Iterator[Line]:
        """Measure sends and deliveries, in an empty ledger and beside a million rows that are settled."""
        yield from self._sends("")
        yield from self.deliveries.lines("")
        _settle(self.settled)
        suffix = f" [{self.settled:,} settled]"
        yield from self._sends(suffix)
        yield from self.deliveries.lines(suffix)

    def _sends(self, suffix: str) -> Iterator[Line]:
        for title, signal, target in (
            ("durable send(), and one row created", signals.kept, 1.3),
            ("durable send() to three, and one row created", signals.kept_by_three, 1.5),
        ):
            ours = partial(signal.send, sender=Cohort, cohort_id=self.cohort.pk, created=True)
            yield compare(
                title + suffix,
                _in_a_transaction(ours, self.calls),
                _in_a_transaction(_create, self.calls),
                calls=1,
                per_call=self.calls,
                rounds=15,
                target=target,
            )
        yield from self._many(suffix)

    def _many(self, suffix: str) -> Iterator[Line]:
        payloads = [{"cohort_id": self.cohort.pk, "created": True}] * ROWS

        def record() -> None:
            ledger.record([_part(item) for item in outgoing], using=ledger.using())

        def create() -> None:
            Academy.objects.bulk_create([_ordinary() for _ in range(ROWS)])

        outgoing = _captured(lambda: signals.kept.send_many(Cohort, payloads))
        send = partial(signals.kept.send_many, Cohort, payloads)
        for title, ours, target in (("rows of", record, 1.0), ("whole", send, 3.0)):
            yield compare(
                f"{title} send_many() of {ROWS:,}, and bulk_create(); each{suffix}",
                _in_a_transaction(ours, 1),
                _in_a_transaction(create, 1),
                calls=1,
                per_call=ROWS,
                rounds=9,
                target=target,
            )


def _in_a_transaction(function: Callable[[], object], times: int) -> Callable[[], None]:
    """Call a function in a transaction that leaves nothing."""

    def call() -> None:
        with transaction.atomic():
            for _ in range(times):
                function()
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


def _part(item: Outgoing) -> ledger.Part:
    return ledger.Part(item.message, item.body, item.queue)


def _settle(count: int) -> None:
    """Fill the ledger with what is done."""
    now = timezone.now()
    for _ in range(count // 10_000):
        messages = [
            StoredMessage(id=uuid7(), signal="benchmarks.old", text="x" * 300, created_at=now) for _ in range(10_000)
        ]
        deliveries = [
            Delivery(
                id=delivery_id(message.pk, "old"),
                message=message,
                receiver="old",
                state=State.DONE,
                attempts=1,
                due_at=now,
                created_at=now,
                ended_at=now,
            )
            for message in messages
        ]
        StoredMessage.objects.bulk_create(messages, batch_size=1000)
        Delivery.objects.bulk_create(deliveries, batch_size=1000)

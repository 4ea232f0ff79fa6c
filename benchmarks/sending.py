"""What a send costs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from benchmarks import signals, stock
from benchmarks.measure import compare
from signalbus import Signal
from tasks.admissions.models import Cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from django.db.models import Model

    from benchmarks.measure import Line

BATCH = 100
QUEUES = ("signalbus", "celery")
CROWD = 5000  # other signals, and as many receivers


class Sending:
    """Measures sends of one instance.

    Args:
        cohort: the instance.
        broker: a client of the server that the messages go to.
        scale: how many times as many calls as a quick look takes.
    """

    def __init__(self, cohort: Cohort, broker: redis.Redis, scale: float) -> None:
        self.cohort = cohort
        self.broker = broker
        self.calls = max(1, int(100 * scale))
        self.rounds = 15
        self.crowd: list[tuple[Signal, Callable[..., None]]] = []

    def lines(self) -> Iterator[Line]:
        """Measure a send beside Celery's ``delay``, and beside Django's ``send`` where nothing travels."""
        yield self._alone("send() of a message, and .delay()")
        yield self._in_transaction(f"{BATCH} send() in a transaction, and {BATCH} .delay() on commit; each")
        yield self._many(f"send_many() of {BATCH}, and {BATCH} .delay(); each")
        yield from self._local("")
        self._register_a_crowd()
        with_crowd = f" [{CROWD:,} others]"
        yield self._alone(f"send() of a message, and .delay(){with_crowd}")
        yield from self._local(with_crowd)

    def _send(self) -> None:
        signals.fetched.send(sender=Cohort, instance=self.cohort, created=True)

    def _delay(self) -> None:
        stock.fetch.delay("admissions.Cohort", self.cohort.pk, True)

    def _empty(self) -> None:
        self.broker.delete(*QUEUES)

    def _alone(self, title: str) -> Line:
        return compare(
            title, self._send, self._delay, calls=self.calls, rounds=self.rounds, target=1.2, between=self._empty
        )

    def _in_transaction(self, title: str) -> Line:
        def ours() -> None:
            with transaction.atomic():
                for _ in range(BATCH):
                    self._send()

        def other() -> None:
            with transaction.atomic():
                for _ in range(BATCH):
                    transaction.on_commit(partial(stock.fetch.delay, "admissions.Cohort", self.cohort.pk, True))

        calls = max(1, self.calls // 25)
        return compare(title, ours, other, calls=calls, rounds=7, per_call=BATCH, target=1.2, between=self._empty)

    def _many(self, title: str) -> Line:
        payloads = [{"instance": self.cohort, "created": True}] * BATCH

        def other() -> None:
            for _ in range(BATCH):
                self._delay()

        calls = max(1, self.calls // 25)
        ours = partial(signals.fetched.send_many, Cohort, payloads)
        return compare(title, ours, other, calls=calls, rounds=7, per_call=BATCH, between=self._empty)

    def _local(self, suffix: str) -> Iterator[Line]:
        payload = {"sender": Cohort, "instance": self.cohort, "created": True}
        for title, ours, other, target in (
            ("send() without receivers, and Django's", signals.unheard, signals.django_unheard, 1.5),
            ("send() to an inline receiver, and Django's", signals.inline, signals.django_inline, 2.0),
        ):
            yield compare(
                title + suffix,
                partial(ours.send, **payload),
                partial(other.send, **payload),
                calls=self.calls * 50,
                rounds=self.rounds,
                target=target,
            )

    def _register_a_crowd(self) -> None:
        for number in range(CROWD):
            signal = Signal(f"benchmarks.crowd_{number}")

            def receiver(sender: type[Model], **kwargs: object) -> None:
                """Listen to one of the others."""

            signal.connect(receiver, sender=Cohort, dispatch_uid=f"benchmarks.crowd_{number}")
            self.crowd.append((signal, receiver))

    def costs(self) -> Iterator[str]:
        """Count what a send writes and asks."""
        for title, send, queue in (("send()", self._send, QUEUES[0]), (".delay()", self._delay, QUEUES[1])):
            send()
            self._empty()
            before = self._commands()
            with CaptureQueriesContext(connection) as queries:
                send()
            commands = self._commands() - before - 1  # the question itself
            (item,) = self.broker.lrange(queue, 0, -1)
            yield f"{title}: {len(item):,} bytes on the queue, {commands} broker command(s), {len(queries)} queries"
        self._empty()
        with transaction.atomic():
            for _ in range(BATCH):
                self._send()
        items: list[bytes] = self.broker.lrange(QUEUES[0], 0, -1)  # type: ignore[assignment]
        size = sum(map(len, items)) / BATCH
        yield f"{BATCH} send() in a transaction: {len(items)} Celery message(s), {size:,.0f} bytes for each send()"
        self._empty()

    def _commands(self) -> int:
        return int(self.broker.info("stats")["total_commands_processed"])

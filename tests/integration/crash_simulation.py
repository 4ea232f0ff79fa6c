"""A bus whose every crash point can be chosen: processes that stop between two commits, a broker, and a clock.

The processes are threads, of which one runs at a time; the tables are real. On SQLite no other process can use a table
while a receiver's transaction is open, so a process there either continues or dies. Between two commits a process may
stop for any time.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created

from signalbus import Retry, Signal, current
from signalbus.broker import publisher
from signalbus.ledger import attempts, sweeps
from signalbus.models import Delivery, QueueState, State, StoredMessage
from signalbus.receiving.process import leases
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.running import attempt, group_commit, grouping
from signalbus.receiving.settling import listeners
from signalbus.receiving.sweeping import due_publication
from signalbus.sending import outbox
from tasks.admissions.models import Academy

from .bus import QUEUE, connect, new_signal

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
    from uuid import UUID

    from signalbus.sending.outgoing import Outgoing

ATOMIC = ("tag", "fail")  # "fail" does so in its first run of a message
OUTSIDE = "mail"  # atomic=False
SOON = Retry(max_attempts=3, base_delay=1.0, jitter=False)

_here = threading.local()  # process: whose thread this is


class Crash(KeyboardInterrupt):
    """Ends a process like ``kill -9``: no code handles it, and nothing more is written."""


class Clock:
    """The database's clock, which replaces SQLite's own."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def put_in(self, connection: Any, **_kwargs: object) -> None:
        """Replace the clock of a new connection."""
        connection.connection.create_function("strftime", -1, self._strftime)

    def _strftime(self, form: str, when: str, shift: str = "0 seconds") -> str:
        assert when.lower() == "now"
        self.now += timedelta(milliseconds=1)  # no two moments are one
        told = self.now + timedelta(seconds=float(shift.split(maxsplit=1)[0]))
        return told.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + ("000" if form.endswith("000") else "")


class Process:
    """Work that can be stopped, and ended, between its commits.

    Args:
        work: what it does.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self.place = ""  # where it stands
        self.ended = self.crashed = False
        self.error: BaseException | None = None
        self._dies_here = self._dies_in_receiver = False
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        _here.process = self
        self._mine.acquire()
        try:
            work()
        except Crash:
            self.crashed = True
        except BaseException as error:  # noqa: BLE001 - raised where the process is stepped
            self.error = error
        finally:
            connections.close_all()
            self.ended = True
            self._theirs.release()

    def go_on(self, *, die: bool = False, die_in_receiver: bool = False) -> None:
        """Let it work until it ends, or stands between two commits again.

        Args:
            die: it dies where it stands.
            die_in_receiver: it dies in a receiver's transaction, if it gets to one.
        """
        self._dies_here, self._dies_in_receiver = die, die_in_receiver
        self._mine.release()
        assert self._theirs.acquire(timeout=30), f"it hangs at {self.place}"
        if self.ended:
            self._thread.join()
        if self.error is not None:
            raise self.error

    def stand(self, place: str) -> None:
        """Wait for what happens next."""
        self.place = place
        self._theirs.release()
        self._mine.acquire()
        if self._dies_here:
            raise Crash

    def in_receiver(self) -> None:
        """Die, if the process is to die here."""
        if self._dies_in_receiver:
            raise Crash


def stand(place: str) -> None:
    """Stop here, if this is a process."""
    process: Process | None = getattr(_here, "process", None)
    if process is not None:
        process.stand(place)


@dataclass(slots=True)
class Item:
    """A Celery message on the broker."""

    texts: list[str]
    redelivered: bool = False


class Broker:
    """Queues items; accepts nothing while it is away."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.away = False

    def publish_texts(self, _queue: str | None, texts: Sequence[str], *, sizes: Iterable[int] = ()) -> None:
        """Queue texts as the publisher does: several Celery messages in one step."""
        if self.away:
            raise publisher.PublishError(range(len(texts)), ConnectionError("away"))
        if texts:
            rest = iter(texts)
            self.items += [Item(list(islice(rest, size))) for size in sizes or [len(texts)]]
            stand("published")


class Leases:
    """Renews claims when the clock goes on, as a worker's thread does."""

    def __init__(self) -> None:
        self.claims: dict[tuple[UUID, int], Process] = {}

    @contextmanager
    def renewed(self, delivery: UUID, number: int) -> Iterator[None]:
        """As the real ones."""
        self.claims[delivery, number] = _here.process
        try:
            yield
        finally:
            del self.claims[delivery, number]


class Steady(ReceiverRuntimes):
    """A runtime estimate that learns that each run was brief, so that an order of crashes can be repeated."""

    def learn(self, key: Hashable, seconds: float) -> None:
        """As the real one, of another time."""
        super().learn(key, 0.001)


class World:
    """All parts of the bus; ``close`` restores what it replaced.

    Args:
        receipts: counts how often each delivery of a receiver without a transaction was settled as done.
    """

    def __init__(self, signal: Signal, receipts: Counter[UUID]) -> None:
        self.signal = signal
        self.clock, self.broker, self.leases = Clock(), Broker(), Leases()
        self.receipts = receipts
        self.committed: set[UUID] = set()
        self._processes: list[Process] = []
        self._stack = ExitStack()
        runtimes = Steady()
        connection.close()
        connection_created.connect(self.clock.put_in)
        self._stack.callback(connection.close)
        self._stack.callback(connection_created.disconnect, self.clock.put_in)
        for place, name, made in (
            (publisher, "publish_texts", self.broker.publish_texts),
            (outbox, "outage", outbox.Outage()),
            (attempt, "leases", self.leases),
            (listeners, "runtimes", runtimes),
            (grouping, "runtimes", runtimes),
            (group_commit, "runtimes", runtimes),
            (group_commit, "BRIEF", 60.0),
            (attempts, "claim", partial(self._claim, attempts.claim)),
            (attempts, "settle", partial(self._settle, attempts.settle)),
            (sweeps, "take_due", partial(self._then_stand, sweeps.take_due, "taken")),
            (outbox, "publish", partial(self._publish, outbox.publish)),
            (sweeps, "mark", partial(self._then_stand, sweeps.mark, "marked")),
        ):
            self._stack.enter_context(patch.object(place, name, made))
        for model in (Delivery, StoredMessage, QueueState, Academy):
            model.objects.all().delete()

    def close(self) -> None:
        """End all processes, and restore everything."""
        for process in self._processes:
            while not process.ended:
                process.go_on(die=True)
        self._stack.close()

    @staticmethod
    def _claim(claim: Callable[..., Any], *args: Any, **options: Any) -> Any:
        taken = claim(*args, **options)
        stand("claimed")
        return taken

    def _settle(self, settle: Callable[..., bool], delivery: UUID, settlement: Any, **options: Any) -> bool:
        settled = settle(delivery, settlement, **options)
        if settled and settlement.state == State.DONE:
            self.receipts[delivery] += 1
        return settled

    @staticmethod
    def _then_stand(work: Callable[..., Any], place: str, *args: Any) -> Any:
        result = work(*args)
        stand(place)
        return result

    def _publish(self, publish: Callable[..., None], outgoing: Sequence[Outgoing], **options: Any) -> None:
        self.committed.update(item.message.id for item in outgoing)
        stand("committed")
        publish(outgoing, **options)

    # What processes do

    def process(self, work: Callable[[], object]) -> Process:
        """Begin some work."""
        self._processes.append(Process(work))
        return self._processes[-1]

    def send(self, count: int) -> None:
        """Send messages in one transaction, and publish them."""
        with transaction.atomic():
            for _ in range(count):
                self.signal.send(None)
            process: Process = _here.process
            process.in_receiver()

    def work(self, item: Item) -> None:
        """Deliver an item, as one process of a worker does, up to its acknowledgement."""
        deliver(item.texts, queue=QUEUE, redelivered=item.redelivered)
        stand("delivered")

    def sweep(self) -> None:
        """Publish due deliveries once, as a sweeper does again and again."""
        try:
            due_publication.mark()
            due_publication.sweep()
        except publisher.PublishError:
            return

    def wait(self, seconds: float, asleep: Sequence[Process | None] = ()) -> None:
        """Let the clock go on; processes outside of a transaction, and not asleep, renew their leases meanwhile."""
        while seconds > 0:
            step = min(seconds, leases.RENEW_EVERY)
            self.clock.now += timedelta(seconds=step)
            seconds -= step
            attempts.renew([key for key, process in self.leases.claims.items() if process not in asleep], leases.LEASE)


def new_signal_with_receivers() -> Signal:
    """Make a durable signal with a receiver of each kind."""
    signal = new_signal(durable=True)
    failed: set[UUID] = set()

    def leave_effect(*, atomic: bool = True, **_kwargs: object) -> None:
        delivery = current()
        assert delivery is not None
        name = f"{delivery.message_id} {delivery.receiver}"
        Academy.objects.create(name=name, slug=f"a{Academy.objects.count()}")
        if atomic:
            process: Process = _here.process
            process.in_receiver()
        if delivery.receiver == "fail" and delivery.message_id not in failed:
            failed.add(delivery.message_id)
            raise ValueError("not the first time")

    def mail(**_kwargs: object) -> None:
        stand("running")
        leave_effect(atomic=False)
        stand("ran")

    for uid in ATOMIC:
        connect(signal, partial(leave_effect), uid, retry=SOON)
    connect(signal, mail, OUTSIDE, retry=SOON, atomic=False)
    return signal

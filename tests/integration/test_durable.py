"""Promises 2 and 3: a committed message is delivered, whatever is lost, and a receiver's writes are there once."""

from __future__ import annotations

import sys
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.db.models import F
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from signalbus import Retry, Signal
from signalbus.broker import publisher
from signalbus.failure_signals import delivery_dead
from signalbus.ledger import attempts, sends
from signalbus.ledger.base.clock import Now
from signalbus.ledger.sweeps import due
from signalbus.models import Delivery, QueueState, StoredMessage
from signalbus.receiving.process.receiver_runtimes import runtimes
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.due_publication import mark, sweep
from signalbus.sending import outbox
from tasks.admissions.models import Academy

from .bus import QUEUE, Bus, connect, elsewhere, let_wait, new_signal, only, recover, rows

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def durable() -> Signal:
    """A durable signal without receivers."""
    return new_signal(durable=True)


@pytest.fixture(autouse=True)
def broker_is_well() -> Iterator[None]:
    """End the outage of an earlier test."""
    outbox.outage.is_over()
    yield
    outbox.outage.is_over()


def write_academy(**kwargs: Any) -> None:
    """Write a row."""
    Academy.objects.create(name="A", slug=f"a{Academy.objects.count()}")


def test_promise_2_rows_are_written_with_the_senders_own(bus: Bus, durable: Signal):
    """A durable send in a transaction leaves its rows if it commits, and none if it rolls back."""
    connect(durable, write_academy, "receiver")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        durable.send(None)
        raise ZeroDivisionError
    assert rows() == []
    assert not StoredMessage.objects.exists()

    with transaction.atomic():
        durable.send(None)
        assert rows() == [("receiver", "published", 0)]
        assert bus.client.llen(QUEUE) == 0

    assert bus.client.llen(QUEUE) == 1


def test_promise_3_the_effect_and_the_receipt_are_one_commit(bus: Bus, durable: Signal):
    """A delivery is done when its writes are there; two copies of a message make one effect."""
    connect(durable, write_academy, "receiver")
    durable.send(None)
    (texts,) = bus.take()

    deliver(texts, queue=QUEUE)
    deliver(texts, queue=QUEUE)
    deliver(texts, queue=QUEUE, redelivered=True)

    assert Academy.objects.count() == 1
    assert rows() == [("receiver", "done", 1)]


def test_promise_3_a_worker_that_dies_in_the_receiver_leaves_nothing(bus: Bus, durable: Signal):
    """The writes of an interrupted run are rolled back, and it runs again."""
    runs: list[int] = []

    def receiver_that_dies_once(**kwargs):
        write_academy()
        runs.append(1)
        if len(runs) == 1:
            raise KeyboardInterrupt  # ends this process as a kill would, without settling anything

    connect(durable, receiver_that_dies_once, "receiver")
    durable.send(None)
    (texts,) = bus.take()
    with pytest.raises(KeyboardInterrupt):
        deliver(texts, queue=QUEUE)
    assert rows() == [("receiver", "published", 0)]
    assert not Academy.objects.exists()

    deliver(texts, queue=QUEUE, redelivered=True)

    assert Academy.objects.count() == 1
    assert rows() == [("receiver", "done", 1)]


def test_promise_2_a_wiped_broker_loses_nothing(bus: Bus, durable: Signal):
    """The lost messages are published again, once a marker has come back."""
    connect(durable, write_academy, "receiver")
    durable.send(None)
    bus.client.flushall()

    assert recover(bus) == 1

    assert Academy.objects.count() == 1
    assert [state for _, state, _ in rows()] == ["done"]


def test_promise_2_a_sender_that_dies_before_it_publishes_loses_nothing(bus: Bus, durable: Signal, monkeypatch):
    """Between the commit and the publication the row suffices."""

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    connect(durable, write_academy, "receiver")
    monkeypatch.setattr(publisher, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        durable.send(None)
    monkeypatch.undo()

    assert recover(bus) == 1

    assert Academy.objects.count() == 1


def test_a_backlog_is_not_published_again(bus: Bus, durable: Signal):
    """A message that waits in the queue is late, not lost, however long it waits."""
    connect(durable, write_academy, "receiver")
    for _ in range(5):
        durable.send(None)
    let_wait()
    mark()
    waiting = bus.client.llen(QUEUE)

    assert sweep() == 0

    assert waiting == bus.client.llen(QUEUE) == 6
    bus.work()
    assert sweep() == 0
    assert Academy.objects.count() == 5


@pytest.mark.parametrize("on_the_broker", [True, False])
def test_a_rotated_secret_key_loses_nothing(bus: Bus, durable: Signal, on_the_broker: bool):
    """Rows have no signature: they are signed with the new key, and delivered."""
    connect(durable, write_academy, "receiver")
    with override_settings(SECRET_KEY="an old one"):
        durable.send(None)
    if not on_the_broker:
        bus.client.flushall()

    with override_settings(SECRET_KEY="a new one"):
        assert recover(bus) == 1

    assert Academy.objects.count() == 1
    assert ("receiver", "done") in [(receiver, state) for receiver, state, _ in rows()]


@pytest.mark.parametrize("database", ["postgres"])
def test_a_healthy_receiver_runs_once_however_long_it_takes(bus: Bus, durable: Signal):
    """The row of the delivery is locked while the receiver runs, also for three times the recovery time."""
    published: list[int] = []

    def look() -> None:
        for _ in range(3):
            QueueState.objects.update(seen_at=F("seen_at") - timedelta(seconds=due.GRACE))
            mark()
            bus.work()
            published.append(sweep())
        connections.close_all()

    def receiver_that_takes_long(**kwargs):
        write_academy()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(30)

    connect(durable, receiver_that_takes_long, "slow")
    durable.send(None)
    let_wait(3 * 30)
    bus.work()

    assert published == [0, 0, 0]
    assert Academy.objects.count() == 1
    assert rows() == [("slow", "done", 1)]


def test_a_prefetched_message_is_late_for_a_while(bus: Bus, durable: Signal):
    """A prefetched message is lost only if no worker ran it for a while after the marker had come back."""
    connect(durable, write_academy, "receiver")
    durable.send(None)
    fetched = bus.take()
    let_wait()
    mark()
    bus.work()

    assert sweep() == 0

    let_wait(due.GRACE)
    for texts in fetched:
        deliver(texts, queue=QUEUE)
    mark()
    bus.work()
    assert sweep() == 0
    assert Academy.objects.count() == 1


def test_markers_returned_together_count_as_one(bus: Bus, durable: Signal):
    """Several markers wait in a long queue; a message that was claimed just before them is late, not lost."""
    connect(durable, write_academy, "receiver")
    durable.send(None)
    fetched = bus.take()
    for _ in range(4):
        let_wait(due.MARK_AGAIN)
        mark()
    bus.work()

    assert sweep() == 0

    for texts in fetched:
        deliver(texts, queue=QUEUE)
    assert Academy.objects.count() == 1


def test_a_requeued_message_is_not_proved_lost_by_earlier_markers(bus: Bus, durable: Signal):
    """The rest of a batch goes to the end of the queue, behind the markers."""
    connect(durable, write_academy, "receiver")
    with transaction.atomic():
        durable.send(None)
        durable.send(None)
    ((first, second),) = bus.take()
    let_wait(60)

    with override_settings(SIGNALBUS={"BATCH_SECONDS": 0.0}):
        deliver([first, second], queue=QUEUE)

    assert bus.client.llen(QUEUE) == 1
    waiting = Delivery.objects.get(state="published")
    assert waiting.due_at > waiting.created_at


def test_a_failure_is_settled_and_retried(bus: Bus, durable: Signal):
    """A failed attempt is counted once, and the next one is settled first again."""
    runs: list[int] = []

    def receiver_that_fails_once(**kwargs):
        runs.append(1)
        write_academy()
        if len(runs) == 1:
            raise ValueError

    connect(durable, receiver_that_fails_once, "receiver")
    durable.send(None)
    bus.work()
    assert rows() == [("receiver", "pending", 1)]
    assert not Academy.objects.exists()

    bus.come_again()

    assert rows() == [("receiver", "done", 2)]
    assert Academy.objects.count() == 1


def test_a_failing_receiver_does_not_affect_others(bus: Bus, durable: Signal):
    """Promise 5: receivers that succeeded are done, and do not run again."""

    def receiver_that_raises(**kwargs):
        raise ValueError

    connect(durable, receiver_that_raises, "bad", retry=Retry(max_attempts=2))
    connect(durable, write_academy, "good")
    durable.send(None)
    bus.work()
    bus.come_again()

    assert rows() == [("bad", "dead", 2), ("good", "done", 1)]
    assert Academy.objects.count() == 1


@pytest.mark.parametrize("atomic", [True, False])
def test_a_poison_message_runs_at_most_once_more_than_its_attempts(bus: Bus, durable: Signal, atomic: bool):
    """Attempts are counted by commits of their own, and the delivery is dead at last."""
    runs: list[int] = []

    def receiver_that_kills_its_worker(**kwargs):
        runs.append(1)
        raise KeyboardInterrupt

    connect(durable, receiver_that_kills_its_worker, "killer", retry=Retry(max_attempts=3), atomic=atomic)
    durable.send(None)
    for _ in range(16):
        let_wait()
        mark()
        sweep()
        for texts in bus.take():
            try:
                deliver(texts, queue=QUEUE)
            except KeyboardInterrupt:
                continue

    assert len(runs) == (4 if atomic else 3)
    assert [(receiver, state) for receiver, state, _ in rows()] == [("killer", "dead")]
    assert "its worker was lost" in only().error


def test_a_healthy_receiver_without_a_transaction_keeps_its_claim(bus: Bus, durable: Signal, monkeypatch):
    """The lease is renewed while the receiver runs, however long it takes."""
    from signalbus.receiving.process import leases

    monkeypatch.setattr(leases, "RENEW_EVERY", 0.02)
    monkeypatch.setattr(leases, "LEASE", 30.0)
    renewed: list[float] = []

    def receiver_that_takes_long(**kwargs):
        from tests.servers import wait_until

        Delivery.objects.update(due_at=F("created_at"))
        wait_until(lambda: Delivery.objects.filter(due_at__gt=F("created_at")).exists())
        renewed.append(1)
        assert sweep() == 0

    connect(durable, receiver_that_takes_long, "slow", atomic=False)
    durable.send(None)
    bus.work()

    assert renewed == [1]
    assert rows() == [("slow", "done", 1)]


def test_a_redelivered_batch_does_not_take_a_running_claim(bus: Bus, durable: Signal):
    """The worker of that claim lost only the connection to the broker."""
    ran: list[str] = []

    def come_again() -> None:
        deliver(texts, queue=QUEUE, redelivered=True)
        sweep()
        bus.work()

    def slow(**kwargs: Any) -> None:
        ran.append("slow")
        if len(ran) == 1:
            elsewhere(come_again)

    connect(durable, slow, "slow", atomic=False)
    connect(durable, lambda **kwargs: ran.append("quick"), "quick")
    durable.send(None)
    (texts,) = bus.take()

    deliver(texts, queue=QUEUE)

    assert ran == ["slow", "quick"]
    assert rows() == [("quick", "done", 1), ("slow", "done", 1)]


def test_a_message_waits_in_its_row_during_an_outage_of_the_broker(bus: Bus, durable: Signal, monkeypatch, caplog):
    """send() does not raise, and does not try again for a moment; the outage is logged once."""
    tried: list[int] = []

    def refuse(queue: str | None, bodies: Any) -> None:
        tried.append(1)
        raise publisher.PublishError(range(len(bodies)), OSError("away"))

    connect(durable, write_academy, "receiver")
    with monkeypatch.context() as away:
        away.setattr(publisher, "publish", refuse)
        for _ in range(3):
            durable.send(None)

    assert tried == [1]
    assert rows() == [("receiver", "pending", 0)] * 3
    assert [record.levelname for record in caplog.records if "until the broker is back" in record.message] == [
        "WARNING"
    ]

    assert sweep() == 3
    bus.work()
    assert Academy.objects.count() == 3

    monkeypatch.setattr(outbox.outage, "_again_at", 0.0)  # the moment is over
    durable.send(None)
    assert "; 3 message(s) were kept" in caplog.text


def test_without_its_database_send_raises_and_publishes_nothing(bus: Bus, durable: Signal, monkeypatch):
    """A durable message that cannot be recorded is not sent."""

    def away(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away")

    connect(durable, write_academy, "receiver")
    monkeypatch.setattr(sends, "record", away)

    with pytest.raises(DatabaseError):
        durable.send(None)

    assert bus.client.llen(QUEUE) == 0


def test_a_durable_send_is_one_statement_on_postgresql_and_two_elsewhere(bus: Bus, durable: Signal):
    """The statements of a send in a transaction, and of a delivery, are counted."""
    connect(durable, lambda **kwargs: None, "receiver")
    one = 1 if connection.vendor == "postgresql" else 2

    with transaction.atomic(), CaptureQueriesContext(connections["default"]) as sending:
        durable.send(None)
    ((text,),) = bus.take()
    with CaptureQueriesContext(connections["default"]) as receiving:
        deliver([text], queue=QUEUE)

    assert len(sending) == one
    statements = [query["sql"].split()[0] for query in receiving]
    assert statements.count("UPDATE") == 1
    looks = statements.count("SELECT")
    assert looks == (connection.vendor == "mysql")  # whose UPDATE returns nothing
    assert len(statements) <= 3 + looks  # with BEGIN and COMMIT, where the database shows them


def test_a_batch_of_durable_messages_is_published_together(bus: Bus, durable: Signal):
    """The messages of one transaction are one Celery message, and each has its row."""
    connect(durable, write_academy, "receiver")

    with transaction.atomic():
        for _ in range(20):
            durable.send(None)

    assert bus.client.llen(QUEUE) == 1
    bus.work()
    assert rows() == [("receiver", "done", 1)] * 20
    assert Academy.objects.count() == 20


def test_send_many_records_together(bus: Bus, durable: Signal):
    """Outside of a transaction it records all or nothing, and publishes it."""
    connect(durable, write_academy, "receiver")

    durable.send_many(None, [{"number": number} for number in range(30)])

    assert Delivery.objects.count() == 30
    bus.work()
    assert Academy.objects.count() == 30


@pytest.mark.parametrize("atomic", [True, False])
def test_a_slow_atomic_receiver_is_warned_of(bus: Bus, durable: Signal, monkeypatch, caplog, atomic: bool):
    """After SLOW_SECONDS in a transaction the warning names the remedy, also if the receiver fails."""

    def receiver_that_takes_its_time(**kwargs):
        raise ValueError

    monkeypatch.setattr(runtimes, "_warned_at", {})
    connect(durable, receiver_that_takes_its_time, f"slow {atomic}", atomic=atomic)
    durable.send(None)
    with override_settings(SIGNALBUS={"SLOW_SECONDS": 1e-9}):
        bus.work()

    assert ("connect it with atomic=False" in caplog.text) is atomic


def test_a_retry_fails_with_its_own_traceback_only(bus: Bus, durable: Signal):
    """The claim before it is not in the traceback."""
    handled: list[BaseException | None] = []

    def receiver_that_fails(**kwargs: Any) -> None:
        handled.append(sys.exception())
        raise ValueError("not yet")

    connect(durable, receiver_that_fails, "unsteady", retry=Retry(max_attempts=2))
    durable.send(None)
    bus.work()
    first = only().traceback
    bus.come_again()

    assert handled == [None, None]
    assert first.count("Traceback") == only().traceback.count("Traceback") == 1


@pytest.mark.parametrize("atomic", [True, False])
def test_lowering_max_attempts_keeps_the_last_error_and_counts_no_attempt(
    bus: Bus, durable: Signal, told: list[tuple[str, str, int, str]], atomic: bool
):
    """A deploy allows fewer attempts than were made: the delivery is dead with its last error."""
    runs: list[int] = []

    def receiver_that_fails(**kwargs: Any) -> None:
        runs.append(1)
        raise ValueError("the cause")

    uid = f"unsteady {atomic}"
    connect(durable, receiver_that_fails, uid, retry=Retry(max_attempts=5), atomic=atomic)
    durable.send_many(None, [{}, {}])
    bus.work()
    bus.come_again()
    durable.disconnect(receiver_that_fails, dispatch_uid=uid)
    connect(durable, receiver_that_fails, uid, retry=Retry(max_attempts=2), atomic=atomic)
    bus.come_again()

    assert len(runs) == 4
    for dead in Delivery.objects.all():
        assert (dead.state, dead.attempts, dead.error) == ("dead", 2, "ValueError: the cause")
        assert "in receiver_that_fails" in dead.traceback
    assert [(which, attempt) for which, _, attempt, _ in told][-2:] == [("dead", 2)] * 2
    assert "max_attempts is 2" in told[-1][3]


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("again", ["given out again", "published again"])
def test_a_redelivery_does_not_replace_the_last_error(bus: Bus, durable: Signal, atomic: bool, again: str):
    """The message was redelivered or lost before the worker saw the lowered `max_attempts`."""

    def receiver_that_fails(**kwargs: Any) -> None:
        raise ValueError("the cause")

    connect(durable, receiver_that_fails, "unsteady", retry=Retry(max_attempts=5), atomic=atomic)
    durable.send(None)
    bus.work()
    durable.disconnect(receiver_that_fails, dispatch_uid="unsteady")
    connect(durable, receiver_that_fails, "unsteady", retry=Retry(max_attempts=1), atomic=atomic)
    Delivery.objects.update(due_at=Now())
    sweep()
    if again == "given out again":
        bus.work(redelivered=True)
    else:
        bus.take()
        recover(bus)

    dead = only()
    assert (dead.state, dead.attempts, dead.error) == ("dead", 1, "ValueError: the cause")


def test_an_attempt_that_could_not_begin_is_not_counted(bus: Bus, durable: Signal, monkeypatch):
    """The database fails between the claim and the run: the broker redelivers the message."""
    runs: list[int] = []

    def receiver_that_fails_first(**kwargs: Any) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("not yet")

    def cannot_confirm(*args: Any, **options: Any) -> bool:
        raise OperationalError("database is locked")

    connect(durable, receiver_that_fails_first, "unsteady", retry=Retry(max_attempts=2))
    durable.send(None)
    bus.work()
    Delivery.objects.update(due_at=Now())
    sweep()
    (texts,) = bus.take()
    with monkeypatch.context() as patch, pytest.raises(OperationalError):
        patch.setattr(attempts, "confirm", cannot_confirm)
        deliver(texts, queue=QUEUE, redelivered=True)
    assert rows() == [("unsteady", "published", 1)]
    deliver(texts, queue=QUEUE, redelivered=True)

    assert rows() == [("unsteady", "done", 2)]


def test_the_memory_of_a_failed_receiver_is_freed_before_its_failure_is_recorded(bus: Bus, durable: Signal):
    """Recording the failure needs memory, too."""
    held: list[weakref.ref[Any]] = []

    class Large:
        """Much of it."""

    def receiver_that_eats_memory(**kwargs: Any) -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise MemoryError

    def look(**kwargs: Any) -> None:
        seen.append(held[0]())

    seen: list[Any] = []
    connect(durable, receiver_that_eats_memory, "eats", retry=Retry(max_attempts=1))
    delivery_dead.connect(look, weak=False)
    try:
        durable.send(None)
        bus.work()
    finally:
        delivery_dead.disconnect(look)

    assert rows() == [("eats", "dead", 1)]
    assert seen == [None]

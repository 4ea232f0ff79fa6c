"""Promise 1: a transaction's messages are part of it, and are published together."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase

from signalbus import Signal, conf
from signalbus.broker import publisher
from signalbus.exceptions import PayloadError
from signalbus.models import Delivery, StoredMessage
from signalbus.sending import outbox
from tasks.admissions.models import Academy

from .bus import QUEUE, Bus, connect, eager, new_signal

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def rolled_back(using: str = "default") -> Iterator[None]:
    """Roll a transaction, or a savepoint, back."""
    with suppress(ZeroDivisionError), transaction.atomic(using=using):
        yield
        raise ZeroDivisionError


@pytest.fixture
def signal(ran: list[Any]) -> Signal:
    """A signal with one receiver."""
    signal = new_signal()

    def receiver(sender, number, **kwargs):
        ran.append(number)

    connect(signal, receiver, "transactions.receiver")
    return signal


def test_promise_1_a_rollback_leaves_nothing(bus: Bus, signal: Signal):
    """Neither the broker nor the ledger gets the message."""
    with rolled_back():
        signal.send(None, number=1)

    assert bus.take() == []
    assert not StoredMessage.objects.exists()


def test_promise_1_a_swallowed_error_of_the_ledger_commits_nothing(bus: Bus, signal: Signal, database: str):
    """PostgreSQL would silently roll back at the COMMIT, and earlier messages would be published."""
    if database == "mariadb":
        pytest.skip("an ALTER TABLE there commits")
    durable, called = new_signal(durable=True), []
    connect(durable, lambda **kwargs: None, "unheard")
    with transaction.atomic():
        Academy.objects.create(name="A", slug="a")
        signal.send(None, number=1)
        transaction.on_commit(lambda: called.append(True))
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE signalbus_delivery RENAME TO gone")
        with suppress(DatabaseError):
            durable.send(None)

    assert not Academy.objects.exists()
    assert bus.take() == []
    assert called == []


def test_promise_1_nothing_is_published_before_the_commit(bus: Bus, signal: Signal, ran: list[Any]):
    """A message waits for the commit of the outermost transaction."""
    with transaction.atomic():
        with transaction.atomic():
            signal.send(None, number=1)
        assert bus.client.llen(QUEUE) == 0

    bus.work()
    assert ran == [1]


def test_promise_1_a_rolled_back_savepoint_removes_only_its_messages(bus: Bus, signal: Signal, ran: list[Any]):
    """Messages before, beside and after it are sent, and those of the next transaction."""
    with transaction.atomic():
        signal.send(None, number=1)
        with rolled_back():
            signal.send(None, number=2)
            with transaction.atomic():
                signal.send(None, number=3)
        with transaction.atomic():
            signal.send(None, number=4)
        signal.send(None, number=5)
    with transaction.atomic():
        signal.send(None, number=6)

    bus.work()
    assert sorted(ran) == [1, 4, 5, 6]


def test_a_released_savepoint_rolls_back_with_its_outer_one(bus: Bus, signal: Signal, ran: list[Any]):
    """The buffer of a savepoint is merged with others only if both would roll back together."""
    with transaction.atomic():
        for number in range(5):
            with transaction.atomic():
                signal.send(None, number=number)
        with rolled_back():
            for number in range(10, 15):
                with transaction.atomic():
                    signal.send(None, number=number)
        for number in range(20, 25):
            with transaction.atomic():
                signal.send(None, number=number)

    bus.work()
    assert sorted(ran) == [*range(5), *range(20, 25)]


def test_a_loop_of_atomic_blocks_makes_few_celery_messages(bus: Bus, signal: Signal):
    """A hundred saves, each in an atomic() inside one transaction, do not make a hundred messages."""
    with transaction.atomic():
        for number in range(100):
            with transaction.atomic():
                signal.send(None, number=number)
                transaction.on_commit(lambda: None)

    taken = bus.take()
    assert sum(map(len, taken)) == 100
    assert len(taken) <= 3


def callback_that_raises() -> None:
    """A host's callback with a bug."""
    raise RuntimeError("a host's callback failed")


def test_a_hosts_callback_that_raises_before_ours_loses_no_message(bus: Bus, signal: Signal, ran: list[Any]):
    """Our callbacks run first, whatever was registered before; Django skips those after one that raises."""
    with pytest.raises(RuntimeError), transaction.atomic():
        transaction.on_commit(callback_that_raises)
        signal.send(None, number=1)
        with transaction.atomic():
            transaction.on_commit(callback_that_raises)
            signal.send(None, number=2)
        transaction.on_commit(callback_that_raises)
        signal.send(None, number=3)

    bus.work()
    assert sorted(ran) == [1, 2, 3]


def test_a_hosts_callback_that_raises_in_a_commit_inside_a_callback_loses_no_message(
    bus: Bus, signal: Signal, ran: list[Any]
):
    """A message sent during a commit's callbacks belongs to the transaction that is opened there, or to none."""

    def callback() -> None:
        signal.send(None, number=2)
        with transaction.atomic():
            transaction.on_commit(callback_that_raises)
            signal.send(None, number=3)

    with pytest.raises(RuntimeError), transaction.atomic():
        transaction.on_commit(callback)
        signal.send(None, number=1)

    bus.work()
    assert ran == [1, 2, 3]


def test_the_callbacks_of_others_keep_their_order_and_their_savepoints(bus: Bus, signal: Signal):
    """Only ours are moved to the front; a rollback removes the others' as without us."""
    called: list[str] = []
    with transaction.atomic():
        transaction.on_commit(lambda: called.append("first"))
        signal.send(None, number=1)
        with rolled_back():
            transaction.on_commit(lambda: called.append("rolled back"))
            signal.send(None, number=2)
        with transaction.atomic():
            signal.send(None, number=3)
            transaction.on_commit(lambda: called.append("second"))
        transaction.on_commit(lambda: called.append("third"))

    assert called == ["first", "second", "third"]


def test_callbacks_between_two_sends_do_not_divide_a_transactions_messages(bus: Bus, signal: Signal):
    """The number of callbacks does not matter."""
    with transaction.atomic():
        for number in range(3):
            signal.send(None, number=number)
            for _ in range(100):
                transaction.on_commit(lambda: None)

    assert [len(texts) for texts in bus.take()] == [3]


def test_a_failed_buffer_is_logged_and_does_not_stop_the_commit(
    bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Django 5.2 names a failed callback by its __qualname__."""
    called: list[int] = []

    def publish_that_raises(*args: object, **kwargs: object) -> None:
        raise RuntimeError("nobody expects this")

    monkeypatch.setattr(outbox, "publish", publish_that_raises)
    with transaction.atomic():
        signal.send(None, number=1)
        transaction.on_commit(lambda: called.append(1))

    assert called == [1]
    assert "Error calling Buffer in on_commit()" in caplog.text


def test_a_savepoint_rolled_back_by_hand_removes_no_message(bus: Bus, signal: Signal, ran: list[Any]):
    """As with on_commit, only the savepoints of atomic() count."""
    by_hand = getattr(transaction, "savepoint_create", None) or transaction.savepoint  # the name since Django 6.1
    called: list[int] = []
    with transaction.atomic():
        savepoint = by_hand()
        signal.send(None, number=1)
        transaction.on_commit(lambda: called.append(1))
        transaction.savepoint_rollback(savepoint)

    bus.work()
    assert called == ran == [1]


def test_a_transactions_messages_for_a_queue_are_published_together(bus: Bus, signal: Signal):
    """A Celery message has at most 100 texts; each queue has its own."""
    connect(signal, lambda **kwargs: None, "transactions.mailer", queue="email")

    with transaction.atomic():
        for number in range(250):
            signal.send(None, number=number)

    assert [len(texts) for texts in bus.take()] == [100, 100, 50]
    assert [len(texts) for texts in bus.take("email")] == [100, 100, 50]


def test_a_celery_message_is_below_a_mebibyte(bus: Bus, signal: Signal):
    """Large texts make more Celery messages."""
    with transaction.atomic():
        for _ in range(10):
            signal.send(None, number="x" * 200_000)

    taken = bus.take()
    assert [len(texts) for texts in taken] == [5, 5]
    assert all(sum(map(len, texts)) <= 1024 * 1024 for texts in taken)


def test_a_payload_that_cannot_travel_sends_nothing(bus: Bus, signal: Signal):
    """Bad input, a value that cannot travel, raises in send(); the transaction's other messages are sent."""
    with transaction.atomic():
        signal.send(None, number=1)
        with pytest.raises(PayloadError, match=r"number\.lock"):
            signal.send(None, number={"lock": object()})

    assert [len(texts) for texts in bus.take()] == [1]
    assert not StoredMessage.objects.exists()


def test_a_manual_transaction_is_refused_as_djangos_on_commit_refuses_it(bus: Bus, signal: Signal, database: str):
    """Under set_autocommit(False) the commit is unknown: nothing is published too early."""
    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError):
            signal.send(None, number=1)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)

    assert bus.take() == []


def test_a_commit_in_a_callback_publishes_too(bus: Bus, signal: Signal, ran: list[Any]):
    """An on_commit callback may open a transaction of its own and send in it."""

    def callback() -> None:
        with transaction.atomic():
            signal.send(None, number=2)

    with transaction.atomic():
        transaction.on_commit(callback)
        signal.send(None, number=1)

    bus.work()
    assert sorted(ran) == [1, 2]


def test_eager_mode_delivers_after_the_commit_through_the_codec(bus: Bus, signal: Signal, ran: list[Any]):
    """With CELERY_TASK_ALWAYS_EAGER this process delivers a copy of the sent object."""
    sent = ["a list"]

    with eager(), transaction.atomic():
        signal.send(None, number=sent)
        assert ran == []

    assert ran == [["a list"]]
    assert ran[0] is not sent
    assert bus.take() == []


def test_eager_mode_records_a_failure_and_does_not_raise(bus: Bus):
    """The failure has a row, and the sender goes on."""
    signal = new_signal()

    def receiver_that_raises(sender, **kwargs):
        raise ValueError("no luck")

    connect(signal, receiver_that_raises)
    with eager(), transaction.atomic():
        signal.send(None)

    assert Delivery.objects.get().error == "ValueError: no luck"


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_publishes_on_a_connection_of_its_own(bus: Bus, signal: Signal, ran: list[Any]):
    """The parent still uses the old socket."""
    signal.send(None, number=1)
    before = bus.client.info("stats")["total_connections_received"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        code = 1
        try:
            publisher.publish_texts(None, ["a child's"])
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    signal.send(None, number=2)

    assert bus.client.info("stats")["total_connections_received"] > before
    texts = [text for taken in bus.take() for text in taken]
    assert len(texts) == 3
    assert texts[1] == "a child's"


class CapturedOnCommit(TestCase):
    """In a TestCase no commit happens, but Django's own helper runs the callbacks."""

    def test_capture_on_commit_callbacks_sees_those_of_its_block(self):
        """Django's tool runs each message of the block once."""
        signal = new_signal()
        told: list[int] = []
        connect(signal, lambda number, **kwargs: told.append(number), "captured.receiver")

        with eager():
            signal.send(None, number=1)
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                signal.send(None, number=2)
                with transaction.atomic():
                    signal.send(None, number=3)
                assert told == []

        assert told == [2, 3]
        assert len(callbacks) == 2


def test_the_example_waits_for_the_commit(bus: Bus):
    """The signal of Cohort.save() in tasks/ is on the broker once the row can be read."""
    with transaction.atomic():
        academy = Academy.objects.create(name="A", slug="a")
        academy.cohort_set.create(name="C", slug="c")
        assert bus.client.llen(QUEUE) == 0

    (texts,) = bus.take()
    assert '"admissions.cohort_saved"' in conf.signer().verify(texts[0])

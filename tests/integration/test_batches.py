"""Promise 5 over batches, queues and open signals, and during an outage of the database or the broker."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from django.test import override_settings

from signalbus import Signal, delivery_failed
from signalbus.celery import TASK_NAME
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes
from signalbus.receiving.routing.batch import deliver
from signalbus.transport import coalescing, progress
from signalbus.transport.broker_claims import Claimed
from signalbus.transport.progress import BEGUN, DONE, SHARED, WAITING
from tasks.admissions.models import Academy, Cohort

from .bus import QUEUE, Bus, connect, fails, new_signal, only, rows


def test_the_rest_of_a_batch_is_requeued_after_batch_seconds(bus: Bus, signal: Signal):
    """The texts that have not begun return to the queue, in order, and are delivered once each."""
    ran: list[int] = []
    connect(signal, lambda number, **kwargs: ran.append(number), "slow")
    with transaction.atomic():
        for number in range(5):
            signal.send(None, number=number)
    with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
        assert bus.work() == 1
        assert ran == [0]
        assert bus.client.llen(QUEUE) == 1
        while bus.work():
            pass

    assert ran == [0, 1, 2, 3, 4]


def test_a_batch_that_cannot_be_requeued_is_continued(bus: Bus, signal: Signal, valkey):
    """During an outage of the broker the worker delivers past the time, and loses nothing."""
    ran: list[int] = []
    connect(signal, lambda number, **kwargs: ran.append(number), "slow")
    with transaction.atomic():
        for number in range(3):
            signal.send(None, number=number)
    (texts,) = bus.take()
    valkey.kill()
    try:
        with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
            deliver(texts, queue=QUEUE)
    finally:
        valkey.start()

    assert ran == [0, 1, 2]


def test_receivers_with_queues_get_their_own_message(bus: Bus, signal: Signal):
    """A receiver's failure is recorded with its queue, and retried through it."""
    fails(signal, ValueError(), "mailer", queue="email")
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "plain")
    signal.send(None)
    bus.work()
    bus.work("email")

    assert ran == [1]
    assert rows() == [("mailer", "pending", 1)]
    assert only().queue == "email"
    bus.come_again()
    assert bus.client.llen("email") == 1
    bus.work("email")
    assert rows() == [("mailer", "pending", 2)]


def test_an_open_signal_finds_its_receivers_in_the_worker(bus: Bus):
    """Each is in its own queue, its failures are recorded by name; receivers of another sender are left out."""
    signal = new_signal(open=True)
    signal.send(Cohort, number=1)
    ran: list[str] = []
    connect(signal, lambda **kwargs: ran.append("here"), "here")
    connect(signal, lambda **kwargs: ran.append("cohorts"), "cohorts", sender=Cohort)
    connect(signal, lambda **kwargs: ran.append("academies"), "academies", sender=Academy)
    connect(signal, lambda **kwargs: ran.append("email"), "email", queue="email")
    fails(signal, ValueError(), "failing")
    bus.work()

    assert ran == ["here", "cohorts"]
    assert rows() == [("failing", "pending", 1)]
    bus.work("email")
    assert ran == ["here", "cohorts", "email"]
    bus.come_again()
    assert ran == ["here", "cohorts", "email"]
    assert rows() == [("failing", "pending", 2)]


def test_a_recorded_open_message_is_expanded(bus: Bus, valkey):
    """The message was recorded during an outage of the broker; its row becomes one row for each receiver."""
    signal = new_signal(open=True)
    valkey.kill()
    try:
        signal.send(None, number=1)
    finally:
        valkey.start()
    assert rows() == [("", "pending", 0)]
    ran: list[str] = []
    connect(signal, lambda **kwargs: ran.append("one"), "one")
    connect(signal, lambda **kwargs: ran.append("two"), "two")

    bus.come_again()
    bus.come_again()

    assert sorted(ran) == ["one", "two"]
    assert rows() == [("", "done", 0), ("one", "done", 1), ("two", "done", 1)]


def test_an_outage_of_the_database_requeues_the_message(bus: Bus, signal: Signal, monkeypatch):
    """A failure that cannot be recorded is not swallowed: the broker must keep the Celery message."""
    fails(signal, ValueError())
    signal.send(None)
    (texts,) = bus.take()

    def away(*args, **kwargs):
        raise DatabaseError("away")

    monkeypatch.setattr("signalbus.ledger.attempts.record_settled", away)
    with pytest.raises(DatabaseError, match="away"):
        deliver(texts, queue=QUEUE)


def test_an_error_in_a_receiver_of_delivery_failed_is_logged(bus: Bus, signal: Signal):
    """A host's handler may fail as well."""

    def handler_that_raises(**kwargs):
        raise IntegrityError

    ran = []
    fails(signal, ValueError())
    connect(signal, lambda **kwargs: ran.append(1), "after")
    delivery_failed.connect(handler_that_raises)
    try:
        signal.send(None)
        bus.work()
    finally:
        delivery_failed.disconnect(handler_that_raises)

    assert ran == [1]
    assert rows() == [("failing", "pending", 1)]


class TestProgress:
    """The progress of a batch, and the texts that the main process requeues."""

    @pytest.fixture
    def sheet(self):
        """The progress of the batch."""
        sheet = progress.post(3)
        assert sheet is not None
        yield sheet
        progress.release(sheet)

    def test_a_requeued_text_does_not_begin(self, bus: Bus, signal: Signal, sheet, ran):
        """A receiver hangs; the texts behind it belong to another worker when it is done."""

        def hang(number, **kwargs):
            ran.append(number)
            assert list(sheet.states) == [BEGUN, WAITING, WAITING]
            sheet.make_void()

        connect(signal, hang, "hangs", atomic=False)
        deliver(self.sent(bus, signal), queue=QUEUE, ticket=sheet.ticket)

        assert ran == [0]
        assert list(sheet.reported_states()) == [DONE, WAITING, WAITING]

    def test_a_divided_batch_does_not_requeue_the_rest_again(self, bus: Bus, signal: Signal, sheet, ran):
        """The time of the batch is over as well, and two processes would publish the same texts."""
        connect(signal, lambda number, **kwargs: (ran.append(number), sheet.make_void()), "hangs", atomic=False)
        with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
            deliver(self.sent(bus, signal), queue=QUEUE, ticket=sheet.ticket)

        assert ran == [0]
        assert bus.client.llen(QUEUE) == 0

    def test_texts_that_a_batch_requeued_are_not_requeued_again(self, bus: Bus, signal: Signal, sheet, ran):
        """The main process leaves them alone."""
        connect(signal, lambda number, **kwargs: ran.append(number), "slow", atomic=False)
        with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
            deliver(self.sent(bus, signal), queue=QUEUE, ticket=sheet.ticket)

        assert list(sheet.reported_states()) == [DONE, DONE, DONE]
        assert bus.client.llen(QUEUE) == 1

    def test_deliveries_that_wait_for_a_group_commit_are_visible(self, bus: Bus, sheet, ran, database, monkeypatch):
        """Deliveries of a group can be requeued while another one of the group runs, if that frees their rows."""
        if database == "mariadb":
            pytest.skip("nothing shares a commit there")
        monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)
        durable = new_signal(durable=True)
        connect(durable, lambda number, **kwargs: ran.append(list(sheet.states)), "brief")
        deliver(self.sent(bus, durable), queue=QUEUE, ticket=sheet.ticket)

        free = SHARED if database == "postgres" else BEGUN
        assert ran == [[BEGUN if text == turn else free for text in range(3)] for turn in range(3)]
        assert list(sheet.reported_states()) == [DONE, DONE, DONE]

    def test_a_requeued_recipient_does_not_begin(self, bus: Bus, sheet, ran):
        """A receiver hangs; the recipients behind it belong to another worker, with rows and without."""
        for signal in (new_signal(durable=True), new_signal(durable=False)):
            ran.clear()
            sheet = progress.post(1)
            connect(signal, lambda **kwargs: ran.append("first"), "first", atomic=False)
            connect(signal, lambda sheet=sheet, **kwargs: self.hang(ran, sheet), "second", atomic=False)
            connect(signal, lambda **kwargs: ran.append("third"), "third", atomic=False)
            signal.send(None)
            (texts,) = bus.take()
            deliver(texts, queue=QUEUE, ticket=sheet.ticket)

            assert ran == ["first", {0: bytes([DONE, BEGUN, WAITING])}]
            assert sheet.parts() == {0: bytes([DONE, DONE, WAITING])}
            assert list(sheet.reported_states()) == [DONE]
            progress.release(sheet)

    def hang(self, ran, sheet) -> None:
        """Record the progress, and be given up."""
        ran.append(sheet.parts())
        sheet.make_void()

    def test_done_recipients_are_recorded_in_the_progress(self, bus: Bus, sheet, ran, database, monkeypatch):
        """Recipients that ran alone or in a group, or were parked or requeued, are not given to another worker."""
        monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)
        durable = new_signal(durable=True)
        for name, atomic in (("a", True), ("b", False), ("c", True), ("gone", True)):
            connect(durable, lambda name=name, **kwargs: ran.append(name), name, atomic=atomic)
        durable.send(None)
        durable.disconnect(dispatch_uid="gone")
        (texts,) = bus.take()
        deliver(texts, queue=QUEUE, ticket=sheet.ticket)

        assert sorted(ran) == ["a", "b", "c"]
        assert sheet.parts() == {0: bytes([DONE] * 4)}

    def test_the_rest_of_the_recipients_is_requeued_once(self, bus: Bus, signal: Signal, sheet, ran):
        """The process whose time is over does it."""
        for name in ("a", "b", "c"):
            connect(signal, lambda name=name, **kwargs: ran.append(name), name, atomic=False)
        signal.send(None)
        (texts,) = bus.take()
        with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
            deliver(texts, queue=QUEUE, ticket=sheet.ticket)
        assert ran == ["a"]
        assert sheet.parts() == {0: bytes([DONE, DONE, DONE])}
        assert bus.client.llen(QUEUE) == 1

    def test_recipients_in_a_group_commit_can_be_requeued(self, bus: Bus, sheet, ran, database, monkeypatch):
        """This needs a database that frees their rows while another one runs."""
        if database == "mariadb":
            pytest.skip("nothing shares a commit there")
        monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)
        durable = new_signal(durable=True)
        for name in ("a", "b"):
            connect(durable, lambda **kwargs: ran.append(sheet.parts()[0]), name)
        durable.send(None)
        (texts,) = bus.take()
        deliver(texts, queue=QUEUE, ticket=sheet.ticket)

        free = SHARED if database == "postgres" else BEGUN
        assert ran == [bytes([BEGUN, free]), bytes([free, BEGUN])]
        assert sheet.parts() == {0: bytes([DONE, DONE])}

    def sent(self, bus: Bus, signal: Signal) -> list[str]:
        """Send a batch of three."""
        with transaction.atomic():
            for number in range(3):
                signal.send(None, number=number)
        (texts,) = bus.take()
        return texts


@pytest.mark.parametrize("together", [1, 3])
def test_published_messages_can_be_batched(bus: Bus, signal: Signal, ran, together: int):
    """If the publisher wrote anything unexpected, each message would run alone."""
    connect(signal, lambda **kwargs: None, "receiver")
    with transaction.atomic():
        for _ in range(together):
            signal.send(None)
    item = bus.client.rpop(QUEUE)

    member = coalescing.read(Claimed(item, QUEUE, "tag"), TASK_NAME)

    assert len(member.texts) == together
    assert {key for _, key in member.keys} == {signal.name}

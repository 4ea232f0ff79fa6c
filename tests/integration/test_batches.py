"""Promise 5 over batches, queues and open signals; and where neither database nor broker is well."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from django.test import override_settings

from signalbus import Signal, delivery_failed
from signalbus.celery import TASK_NAME
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.running.receiver_runtimes import Manners
from signalbus.transport import coalescing, progress
from signalbus.transport.claims import Claimed
from signalbus.transport.progress import BEGUN, DONE, SHARED, WAITING
from tasks.admissions.models import Academy, Cohort

from .bus import QUEUE, Bus, connect, fails, new_signal, only, rows


def test_a_batch_gives_the_rest_back_after_its_time(bus: Bus, signal: Signal):
    """BATCH_SECONDS: the texts not begun go back to the queue, in order, and are delivered once each."""
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


def test_a_batch_that_cannot_be_given_back_goes_on(bus: Bus, signal: Signal, valkey):
    """Where the broker is away, the worker delivers past its time, and loses nothing."""
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


def test_receivers_with_queues_get_their_own_part(bus: Bus, signal: Signal):
    """A receiver's failure is kept with its queue, and comes again through it."""
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
    """Each through its own queue, its failures kept by name; whoever listens for another sender is left out."""
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


def test_an_open_message_that_was_kept_is_expanded(bus: Bus, valkey):
    """Kept while the broker was away, its row becomes one for each receiver."""
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


def test_the_database_away_gives_the_message_back(bus: Bus, signal: Signal, monkeypatch):
    """A failure that cannot be written is not swallowed: the broker must keep the Celery message."""
    fails(signal, ValueError())
    signal.send(None)
    (texts,) = bus.take()

    def away(*args, **kwargs):
        raise DatabaseError("away")

    monkeypatch.setattr("signalbus.ledger.keep_settled", away)
    with pytest.raises(DatabaseError, match="away"):
        deliver(texts, queue=QUEUE)


def test_an_announcements_handler_that_fails_disturbs_nobody(bus: Bus, signal: Signal):
    """delivery_failed goes to a host's code, which may fail as well."""

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


class TestWhatTheMainProcessSees:
    """How far a batch has come, and what it takes back."""

    @pytest.fixture
    def sheet(self):
        """Where it is noted."""
        sheet = progress.post(3)
        assert sheet is not None
        yield sheet
        progress.put_away(sheet)

    def test_nothing_is_begun_that_was_taken_back(self, bus: Bus, signal: Signal, sheet, ran):
        """A receiver hangs; what waits behind it is somebody else's by the time it is done."""

        def hang(number, **kwargs):
            ran.append(number)
            assert list(sheet.states) == [BEGUN, WAITING, WAITING]
            sheet.make_void()

        connect(signal, hang, "hangs", atomic=False)
        deliver(self.sent(bus, signal), queue=QUEUE, ticket=sheet.ticket)

        assert ran == [0]
        assert list(sheet.told()) == [DONE, WAITING, WAITING]

    def test_a_batch_that_was_taken_back_gives_nothing_back_itself(self, bus: Bus, signal: Signal, sheet, ran):
        """Its time is over as well; two would publish the same texts."""
        connect(signal, lambda number, **kwargs: (ran.append(number), sheet.make_void()), "hangs", atomic=False)
        with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
            deliver(self.sent(bus, signal), queue=QUEUE, ticket=sheet.ticket)

        assert ran == [0]
        assert bus.client.llen(QUEUE) == 0

    def test_what_a_batch_gives_back_is_done_with_here(self, bus: Bus, signal: Signal, sheet, ran):
        """The main process does not give it back once more."""
        connect(signal, lambda number, **kwargs: ran.append(number), "slow", atomic=False)
        with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
            deliver(self.sent(bus, signal), queue=QUEUE, ticket=sheet.ticket)

        assert list(sheet.told()) == [DONE, DONE, DONE]
        assert bus.client.llen(QUEUE) == 1

    def test_who_waits_for_company_waits_where_it_can_be_seen(self, bus: Bus, sheet, ran, database, monkeypatch):
        """Who shares a commit can be taken back while another of it has its turn, where that frees its row."""
        if database == "mariadb":
            pytest.skip("nothing shares a commit there")
        monkeypatch.setattr(Manners, "expected", lambda self, receiver: 0.001)
        durable = new_signal(durable=True)
        connect(durable, lambda number, **kwargs: ran.append(list(sheet.states)), "brief")
        deliver(self.sent(bus, durable), queue=QUEUE, ticket=sheet.ticket)

        free = SHARED if database == "postgres" else BEGUN
        assert ran == [[BEGUN if text == turn else free for text in range(3)] for turn in range(3)]
        assert list(sheet.told()) == [DONE, DONE, DONE]

    def test_no_recipient_is_begun_that_was_taken_back(self, bus: Bus, sheet, ran):
        """A receiver hangs; the recipients behind it are another worker's, with rows and without."""
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
            assert list(sheet.told()) == [DONE]
            progress.put_away(sheet)

    def hang(self, ran, sheet) -> None:
        """Note what the main process sees, and be given up."""
        ran.append(sheet.parts())
        sheet.make_void()

    def test_recipients_that_are_done_are_noted_as_done(self, bus: Bus, sheet, ran, database, monkeypatch):
        """Whether they run alone or share a commit, are parked or given back: none is given to another worker."""
        monkeypatch.setattr(Manners, "expected", lambda self, receiver: 0.001)
        durable = new_signal(durable=True)
        for name, atomic in (("a", True), ("b", False), ("c", True), ("gone", True)):
            connect(durable, lambda name=name, **kwargs: ran.append(name), name, atomic=atomic)
        durable.send(None)
        durable.disconnect(dispatch_uid="gone")
        (texts,) = bus.take()
        deliver(texts, queue=QUEUE, ticket=sheet.ticket)

        assert sorted(ran) == ["a", "b", "c"]
        assert sheet.parts() == {0: bytes([DONE] * 4)}

    def test_the_rest_of_the_recipients_is_given_back_once(self, bus: Bus, signal: Signal, sheet, ran):
        """By the process that has no more time for them."""
        for name in ("a", "b", "c"):
            connect(signal, lambda name=name, **kwargs: ran.append(name), name, atomic=False)
        signal.send(None)
        (texts,) = bus.take()
        with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
            deliver(texts, queue=QUEUE, ticket=sheet.ticket)
        assert ran == ["a"]
        assert sheet.parts() == {0: bytes([DONE, DONE, DONE])}
        assert bus.client.llen(QUEUE) == 1

    def test_siblings_in_one_commit_can_be_taken_back(self, bus: Bus, sheet, ran, database, monkeypatch):
        """While another one has its turn, where the database frees their rows."""
        if database == "mariadb":
            pytest.skip("nothing shares a commit there")
        monkeypatch.setattr(Manners, "expected", lambda self, receiver: 0.001)
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
def test_what_is_sent_is_plain_enough_to_travel_in_company(bus: Bus, signal: Signal, ran, together: int):
    """If the publisher wrote anything that the transport does not expect, each message would travel alone."""
    connect(signal, lambda **kwargs: None, "receiver")
    with transaction.atomic():
        for _ in range(together):
            signal.send(None)
    item = bus.client.rpop(QUEUE)

    parcel = coalescing.read(Claimed(item, QUEUE, "tag"), TASK_NAME)

    assert len(parcel.texts) == together
    assert {key for _, key in parcel.keys} == {signal.name}

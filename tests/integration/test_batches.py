"""Promise 5 over batches, queues and open signals; and where neither database nor broker is well."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, transaction
from django.test import override_settings

from signalbus import Signal, delivery_failed
from signalbus.receiving.batch import deliver
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

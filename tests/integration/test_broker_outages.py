"""During an outage of the broker no sender hangs, no callback is skipped, and no message is lost."""

from __future__ import annotations

import os
import signal as os_signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, transaction
from django.test import override_settings

from signalbus import Signal, celery
from signalbus.broker import fast_path, publisher
from signalbus.ledger import sends as ledger
from signalbus.models import Delivery
from signalbus.receiving.sweeping.due_publication import sweep
from tests.servers import broker

from .bus import QUEUE, Bus, connect, new_signal, only, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = {"PUBLISH_TIMEOUT": 0.4, "CONNECT_TIMEOUT": 0.4}
NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture
def signal(ran: list[Any]) -> Signal:
    """A signal with one receiver."""
    signal = new_signal()
    connect(signal, lambda number, **kwargs: ran.append(number), "trouble.receiver")
    return signal


@contextmanager
def another_app() -> Iterator[None]:
    """Make the app that carries the messages anew, now and afterwards."""
    celery.get_app.cache_clear()
    try:
        yield
    finally:
        celery.get_app.cache_clear()


@pytest.fixture
def stopped(valkey):
    """The broker hangs: it accepts connections, and answers nothing."""
    os.kill(valkey.pid, os_signal.SIGSTOP)
    yield valkey
    os.kill(valkey.pid, os_signal.SIGCONT)


def test_a_refused_message_is_published_when_the_broker_is_back(bus: Bus, signal: Signal, ran: list[Any]):
    """send() does not raise, later callbacks run, the ledger records the message and the sweeper publishes it."""
    called = []
    with broker(NOBODY):
        with transaction.atomic():
            signal.send(None, number=1)
            transaction.on_commit(lambda: called.append("later callback"))
        assert called == ["later callback"]
        assert rows() == [("trouble.receiver", "pending", 0)]
        assert "refused" in only().error

    assert sweep() == 1
    bus.work()
    assert ran == [1]
    assert rows() == [("trouble.receiver", "done", 1)]


@pytest.mark.parametrize("pooled", [True, False])
def test_a_send_waits_one_timeout_for_a_hanging_broker(bus: Bus, signal: Signal, stopped, pooled: bool):
    """All messages are recorded, however many queues there are."""
    connect(signal, lambda **kwargs: None, "trouble.email", queue="email")
    connect(signal, lambda **kwargs: None, "trouble.sms", queue="sms")
    called = []
    with override_settings(SIGNALBUS=SHORT):
        if pooled:
            os.kill(stopped.pid, os_signal.SIGCONT)
            publisher.publish_texts("warm", ["x"])
            os.kill(stopped.pid, os_signal.SIGSTOP)
        else:
            publisher.forget()
        start = time.monotonic()
        with transaction.atomic():
            signal.send(None, number=1)
            transaction.on_commit(lambda: called.append("later callback"))
        took = time.monotonic() - start

    assert took < 1.5
    assert called == ["later callback"]
    assert [receiver for receiver, state, _ in rows() if state == "pending"] == [
        "trouble.email",
        "trouble.receiver",
        "trouble.sms",
    ]


def test_a_hosts_app_without_timeouts_does_not_hang_either(bus: Bus, signal: Signal, stopped):
    """The bus sets its own timeouts."""
    with (
        override_settings(SIGNALBUS={"CELERY_APP": "tests.host_project.celery:app", **SHORT}),
        another_app(),
    ):
        start = time.monotonic()
        signal.send(None, number=1)
        took = time.monotonic() - start

    assert took < 1.5
    assert rows() == [("trouble.receiver", "pending", 0)]


def test_a_connection_that_the_broker_closed_is_recovered(bus: Bus, signal: Signal, valkey, ran: list[Any]):
    """After a restart of the broker the first message is sent on a new connection, and no row is written."""
    signal.send(None, number=1)
    valkey.kill()
    valkey.start()

    signal.send(None, number=2)

    bus.work()
    assert ran == [2]  # the first was in the memory of a broker that keeps nothing
    assert rows() == []


def test_clients_killed_by_the_broker_are_recovered(bus: Bus, signal: Signal, ran: list[Any]):
    """An idle connection that the broker closed costs no message and no row."""
    signal.send(None, number=1)
    bus.client.client_kill_filter(_type="normal", skipme=True)

    signal.send(None, number=2)

    bus.work()
    assert ran == [1, 2]
    assert rows() == []


def test_a_message_is_recorded_whatever_its_publication_raises(bus: Bus, signal: Signal, ran: list[Any]):
    """The error may not be the broker's, such as that of an app that cannot be imported."""

    called = []
    with override_settings(SIGNALBUS={"CELERY_APP": "tests.no_such_module:app"}), another_app(), transaction.atomic():
        signal.send(None, number=1)
        transaction.on_commit(lambda: called.append("later callback"))

    assert called == ["later callback"]
    assert "no_such_module" in only().error
    bus.come_again()
    assert ran == [1]


def test_a_full_broker_is_a_failed_publication(bus: Bus, signal: Signal):
    """Valkey at its maxmemory refuses writes: the message is recorded in the ledger."""
    bus.client.config_set("maxmemory", "1mb")
    try:
        signal.send(None, number=1)
    finally:
        bus.client.config_set("maxmemory", "0")

    assert rows() == [("trouble.receiver", "pending", 0)]
    assert "maxmemory" in only().error


def test_only_unpublished_messages_of_a_transaction_are_recorded(bus: Bus, signal: Signal, monkeypatch):
    """The broker took the other Celery messages."""
    push, calls = fast_path.FastPath.push, []

    def second_fails(self, queue, batches):
        calls.append(len(batches))
        if len(calls) == 2:
            raise ConnectionError
        push(self, queue, batches)

    monkeypatch.setattr(fast_path.FastPath, "push", second_fails)
    monkeypatch.setattr(publisher, "MAX_PACKET", 2)
    with transaction.atomic():
        for number in range(250):
            signal.send(None, number=number)

    assert [len(texts) for texts in bus.take()] == [100, 100]
    assert len(rows()) == 50


def test_a_sweep_without_a_broker_makes_its_rows_due_again(bus: Bus, signal: Signal):
    """The error says so."""
    with broker(NOBODY):
        signal.send(None, number=1)
        with pytest.raises(publisher.PublishError):
            sweep()
        assert only().state == "pending"
        assert sweep() == 0  # not due yet

    assert bus.come_again() == 1


def test_without_broker_and_ledger_a_send_raises_the_ledgers_error(bus: Bus, signal: Signal, monkeypatch, caplog):
    """send_robust() and a commit log that the message is lost."""

    def away(*args):
        raise DatabaseError("away")

    monkeypatch.setattr(ledger, "record_unpublished", away)
    with broker(NOBODY):
        with pytest.raises(DatabaseError):
            signal.send(None, number=1)
        signal.send_robust(None, number=1)
        with transaction.atomic():
            signal.send(None, number=1)

    assert [record.levelname for record in caplog.records if "LOST" in record.getMessage()] == ["CRITICAL"] * 3


def test_a_message_of_several_queues_is_recorded_for_each(bus: Bus, signal: Signal, ran: list[Any]):
    """Each part returns to its own queue."""
    mailed = []
    connect(signal, lambda number, **kwargs: mailed.append(number), "trouble.mailer", queue="email")
    with broker(NOBODY):
        signal.send(None, number=7)

    assert sweep() == 2
    assert bus.client.llen(QUEUE) == bus.client.llen("email") == 1
    bus.work()
    bus.work("email")
    assert ran == mailed == [7]


def test_a_broken_queue_does_not_block_others(bus: Bus, signal: Signal, ran: list[Any]):
    """The key of one queue has another type: its rows stay due, and the rows of the other queues are published."""
    bus.client.set("email", "not a list")
    connect(signal, lambda **kwargs: None, "trouble.mailer", queue="email")
    with broker(NOBODY):
        signal.send(None, number=1)

    with pytest.raises(publisher.PublishError, match="WRONGTYPE"):
        sweep()

    bus.work()
    assert ran == [1]
    assert rows() == [("trouble.mailer", "pending", 0), ("trouble.receiver", "done", 1)]


def test_a_sweep_ends_while_the_broker_hangs(bus: Bus, signal: Signal, stopped):
    """A sweep takes one timeout or two, however many rows there are, and makes all rows due again."""
    with override_settings(SIGNALBUS=SHORT):
        with broker(NOBODY):
            for _ in range(10):
                signal.send(None, number=1)
        Delivery.objects.update(attempts=1)
        start = time.monotonic()
        with pytest.raises(publisher.PublishError):
            sweep()

    assert time.monotonic() - start < 1.5
    assert {state for _, state, _ in rows()} == {"pending"}

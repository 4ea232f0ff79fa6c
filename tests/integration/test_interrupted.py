"""An interrupted receiver's connections, and those of a test around it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection, transaction
from django.test import TestCase

from signalbus import Retry, Signal
from signalbus.models import Delivery
from signalbus.receiving.process import database_connections
from signalbus.receiving.routing.batch import deliver
from signalbus.testing import DeliveryFailed, captured
from tasks.admissions.models import Academy
from tests.servers import wait_until

from .bus import QUEUE, Bus, connect, eager, interrupt_as_a_transaction_begins, new_signal, only, rows, soft_limit

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def database() -> str:
    """SQLite's queries cannot be interrupted."""
    return "postgres"


def sleep_in_a_query(**kwargs: Any) -> None:
    """Wait for a server that does not answer."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(30)")


def sleep_and_swallow(**kwargs: Any) -> None:
    """Go on after an interruption."""
    with suppress(TimeoutError, SoftTimeLimitExceeded):
        sleep_in_a_query()


def sleeping_queries() -> bool:
    """Return whether the server still runs the interrupted query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(30)'")
        return bool(cursor.fetchall())


@pytest.mark.parametrize("atomic", [True, False])
def test_a_timeout_during_a_query_is_recorded_and_the_next_receiver_runs(bus: Bus, signal: Signal, atomic: bool):
    """The failure is written down, the next receiver runs in its first attempt, and the server runs the query no
    longer: what it locked is free for the next attempt.
    """
    ran = []
    connect(signal, sleep_in_a_query, "interrupted", timeout=0.2, atomic=atomic)
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after", atomic=atomic)
    signal.send(None)
    bus.work()

    assert rows() == [("interrupted", "pending", 1)]
    assert only().error.startswith("TimeoutError: the receiver's timeout")
    assert ran == [0]
    wait_until(lambda: not sleeping_queries(), 5, "the server to give the query up")


@pytest.mark.parametrize("atomic", [True, False])
def test_a_soft_time_limit_during_a_query_is_recorded_and_the_next_receiver_runs(
    bus: Bus, signal: Signal, atomic: bool
):
    """Celery's own limit has the same effect as the receiver's."""
    ran = []
    connect(signal, sleep_in_a_query, "interrupted", atomic=atomic)
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after", atomic=atomic)
    signal.send(None)
    with soft_limit(0.3):
        bus.work()

    assert rows() == [("interrupted", "pending", 1)]
    assert only().error.startswith("SoftTimeLimitExceeded")
    assert ran == [0]


def test_a_swallowed_timeout_leaves_no_broken_connection_to_the_next(bus: Bus, signal: Signal):
    """A receiver may go on after its timeout; its query does not affect the next one."""
    ran = []
    connect(signal, sleep_and_swallow, "swallows", timeout=0.2, atomic=False)
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after", atomic=False)
    signal.send(None)
    bus.work()

    assert ran == [0]
    assert rows() == []


def test_a_swallowed_timeout_in_a_transaction_is_a_failure(bus: Bus, signal: Signal):
    """A transaction in the middle of a query cannot be committed."""
    ran = []
    connect(signal, sleep_and_swallow, "swallows", timeout=0.2)
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after")
    signal.send(None)
    bus.work()

    assert ran == [0]
    assert rows() == [("swallows", "pending", 1)]


@pytest.mark.parametrize(("atomic", "state"), [(True, "dead"), (False, "done")])
def test_the_outcome_of_a_receiver_that_catches_its_timeout_is_recorded(bus: Bus, atomic: bool, state: str):
    """The outcome is recorded at once, although the server still runs the query that locks the row."""
    signal = new_signal(durable=True)
    connect(signal, sleep_and_swallow, "swallows", timeout=0.2, atomic=atomic, retry=Retry(max_attempts=1))
    signal.send(None)
    bus.work()

    assert rows() == [("swallows", state, 1)]


def test_a_limit_that_expires_in_the_bus_itself_leaves_no_broken_connection(bus: Bus, signal: Signal, monkeypatch):
    """The message is requeued, and the next one has a working connection."""
    ran: list[Any] = []
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "receiver")
    signal.send(None)
    (texts,) = bus.take()
    with monkeypatch.context() as patch:
        patch.setattr("signalbus.ledger.attempts.claim", lambda *args, **kwargs: sleep_in_a_query())
        with soft_limit(0.3), pytest.raises(SoftTimeLimitExceeded):
            deliver(texts, queue=QUEUE, redelivered=True)

    deliver(texts, queue=QUEUE, redelivered=True)

    assert ran == [0]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_limit_that_expires_as_a_transaction_begins_leaves_none_open(bus: Bus, signal: Signal, monkeypatch):
    """Django does not know of the transaction yet: on SQLite no other process could write any more."""
    interrupt_as_a_transaction_begins(bus, signal, monkeypatch)


def test_a_driver_that_does_not_report_its_state_is_trusted():
    """MySQL Connector/Python would have to ask its server."""
    assert not database_connections._has_begun(Mock(vendor="mysql", connection=object()))


@pytest.mark.parametrize("atomic", [True, False])
def test_an_open_transaction_does_not_reach_the_next_receiver(bus: Bus, signal: Signal, monkeypatch, atomic: bool):
    """A receiver that is interrupted at a block's end leaves it open; a worker closes it."""
    monkeypatch.setattr(database_connections, "_is_worker", lambda: True)
    ran = []

    def receiver_that_leaves_a_block_open(**kwargs):
        transaction.atomic().__enter__()
        Academy.objects.create(name="phantom", slug="phantom")
        raise ValueError

    connect(signal, receiver_that_leaves_a_block_open, "open", atomic=atomic)
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after", atomic=atomic)
    signal.send(None)
    bus.work()

    assert ran == [0]
    assert rows() == [("open", "pending", 1)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_receiver_that_returns_from_an_open_block_fails_alone(bus: Bus, monkeypatch, count: int):
    """Its transaction is not committed, nor is one that others share with it: those run again, each alone."""
    monkeypatch.setattr(database_connections, "_is_worker", lambda: True)

    def receiver_that_leaves_a_block_open(number: int, **kwargs):
        Academy.objects.create(name="A", slug=f"a{number}")
        if number == 0:
            transaction.atomic().__enter__()

    signal = new_signal(durable=True)
    connect(signal, receiver_that_leaves_a_block_open, "open")
    signal.send_many(None, [{"number": number} for number in range(count)])
    bus.work()

    assert not connection.in_atomic_block
    assert rows() == [*[("open", "done", 1)] * (count - 1), ("open", "pending", 1)]
    assert "left a block of transaction.atomic() open" in Delivery.objects.get(state="pending").error
    assert set(Academy.objects.values_list("slug", flat=True)) == {f"a{number}" for number in range(1, count)}


def backend() -> int:
    """Return the server's process of this connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
        return int(pid)


@pytest.mark.parametrize("atomic", [True, False])
def test_deliver_all_leaves_the_transaction_of_a_test_open(bus: Bus, signal: Signal, atomic: bool):
    """A receiver that fails inside a TestCase closes nothing; the test's writes are still there."""

    def receiver_that_raises(**kwargs):
        raise ValueError("no luck")

    connect(signal, receiver_that_raises, atomic=atomic, retry=Retry(max_attempts=1))
    with transaction.atomic(), captured() as sent:
        before = backend()
        Academy.objects.create(name="kept", slug="kept")
        signal.send(None)
        with pytest.raises(DeliveryFailed, match="no luck"):
            sent.deliver_all()

        assert Academy.objects.get().slug == "kept"
        assert backend() == before
        assert rows() == [("receiver_that_raises", "dead", 1)]


def test_eager_mode_leaves_the_transaction_of_a_test_open(bus: Bus, signal: Signal):
    """CELERY_TASK_ALWAYS_EAGER with Django's captureOnCommitCallbacks does the same as deliver_all()."""
    capture: Callable[..., Any] = TestCase.captureOnCommitCallbacks

    def receiver_that_raises(**kwargs):
        raise ValueError("no luck")

    connect(signal, receiver_that_raises)
    with eager(), transaction.atomic():
        before = backend()
        Academy.objects.create(name="kept", slug="kept")
        with capture(execute=True):
            signal.send(None)

        assert Academy.objects.get().slug == "kept"
        assert backend() == before
        assert rows() == [("receiver_that_raises", "pending", 1)]

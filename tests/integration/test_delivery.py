"""Promises 4 and 5: receivers are independent, and failures are recorded, retried and reported."""

from __future__ import annotations

import contextvars
import time
from typing import Any

import pytest
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import BaseCache
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from signalbus import Reject, Retry, RetryLater, Signal, current
from signalbus.models import Delivery, StoredMessage
from tasks.admissions.models import Academy, Cohort
from tests.other_servers import DATABASE

from .bus import Bus, connect, fails, only, rows

ONCE = Retry(max_attempts=1)
LEAK: contextvars.ContextVar[str] = contextvars.ContextVar("leak", default="clean")


class NeedsALibrary(BaseCache):
    """A cache whose client is not installed, like Django's for memcached."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ImportError("No module named 'pymemcache'")


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of the bus's log records with a traceback."""
    return [record.getMessage() for record in caplog.records if record.name == "signalbus" and record.exc_info]


def test_promise_4_a_delivery_that_succeeds_writes_nothing(bus: Bus, signal: Signal):
    """Without rows and failures, a delivery makes no statement at all."""
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "well", atomic=False)
    signal.send(None)

    with CaptureQueriesContext(connection) as queries:
        bus.work()

    assert ran == [1]
    assert len(queries) == 0
    assert not StoredMessage.objects.exists()


def test_a_receiver_that_cannot_be_called_waits_for_its_next_release(bus: Bus, signal: Signal, caplog):
    """The error names the payload; a release whose receiver accepts it gets it by itself."""

    def requires(craeted, **kwargs):
        pass

    connect(signal, requires, "requiring")
    signal.send(None, created=True)
    bus.work()

    note = "(It was sent created: retries fail too, until the receiver's code is changed.)"
    assert only().error.endswith(f"'craeted' {note}")
    assert only().traceback.endswith(f"'craeted'\n{note}\n")
    assert note in caplog.text
    signal.disconnect(dispatch_uid="requiring")
    connect(signal, lambda created, **kwargs: None, "requiring")
    bus.come_again()
    assert rows() == [("requiring", "done", 2)]


def test_a_failure_is_recorded_logged_once_and_signalled(bus: Bus, signal: Signal, told, caplog):
    """The row has error, traceback (its end), attempts, queue and due time; one log record has the traceback."""
    fails(signal, ValueError("no luck"), retry=Retry(base_delay=100, jitter=False))
    signal.send(None)
    bus.work()

    row = only()
    assert (row.receiver, row.state, row.attempts, row.error) == ("failing", "pending", 1, "ValueError: no luck")
    assert row.traceback.endswith("ValueError: no luck\n")
    assert "receiver_that_raises" in row.traceback
    assert (row.message.signal, row.queue) == (signal.name, "")  # the receiver names no queue: the default one
    assert row.failed_at is not None
    assert row.ended_at is None
    assert 98 < (row.due_at - row.failed_at).total_seconds() <= 100.1
    assert told == [("failed", "failing", 1, "ValueError('no luck')")]
    assert len(tracebacks(caplog)) == 1


def test_error_and_traceback_are_truncated(bus: Bus, signal: Signal):
    """A row is small and can be written, however long the error is and whatever characters it has."""
    fails(signal, ValueError("\x00\ud800" + "x" * 1_000_000))
    signal.send(None)
    bus.work()

    assert len(only().error) < 2100
    assert len(only().traceback) <= 8000 + 100
    assert only().error.startswith("ValueError: \\x00\\ud800")


def test_a_failure_is_retried_until_it_succeeds(bus: Bus, signal: Signal, told):
    """The attempts count up, the delivery's id stays, and it ends as done, without its error."""
    seen: list[tuple[int, Any]] = []

    def receiver_that_fails_twice(sender, label, **kwargs):
        delivery = current()
        assert delivery is not None
        seen.append((delivery.attempt, delivery.id))
        if delivery.attempt < 3:
            raise ValueError(label)

    connect(signal, receiver_that_fails_twice, "twice")
    signal.send(None, label="x")
    bus.work()
    bus.come_again()
    bus.come_again()

    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert {id_ for _, id_ in seen} == {only().id}
    assert rows() == [("twice", "done", 3)]
    assert only().error == ""
    assert [kind for kind, *_ in told] == ["failed", "failed"]
    assert bus.come_again() == 0


def test_the_last_attempt_makes_it_dead(bus: Bus, signal: Signal, told, caplog):
    """With Retry(max_attempts=1) it is dead at once, with one log record and delivery_dead."""
    fails(signal, ValueError("no luck"), retry=ONCE)
    signal.send(None)
    bus.work()

    assert rows() == [("failing", "dead", 1)]
    assert only().ended_at is not None
    assert told == [("dead", "failing", 1, "ValueError('no luck')")]
    assert len(tracebacks(caplog)) == 1
    assert bus.come_again() == 0


def test_reject_makes_it_dead_at_once(bus: Bus, signal: Signal, told):
    """A rejected delivery is not retried."""
    fails(signal, Reject("never"))
    signal.send(None)
    bus.work()

    assert rows() == [("failing", "dead", 1)]
    assert only().error == "Reject: never"
    assert [kind for kind, *_ in told] == ["dead"]


@pytest.mark.parametrize(("delay", "at_least"), [(77, 75), (1e30, 3e7), (-5, -1)])
def test_retry_later_sets_the_time_of_the_next_attempt(bus: Bus, signal: Signal, delay: float, at_least: float):
    """A `RetryLater` counts as an attempt, and the next one comes after its delay; an extreme delay is limited."""
    fails(signal, RetryLater(delay))
    signal.send(None)
    bus.work()

    row = only()
    assert (row.state, row.attempts) == ("pending", 1)
    assert row.failed_at is not None
    assert (row.due_at - row.failed_at).total_seconds() >= at_least


def test_retry_later_is_logged_at_info(bus: Bus, signal: Signal, told, caplog):
    """The line has no traceback; delivery_failed is sent."""
    caplog.set_level("INFO", "signalbus")
    fails(signal, RetryLater(77))
    signal.send(None)
    bus.work()

    (record,) = [record for record in caplog.records if record.name == "signalbus"]
    assert (record.levelname, record.exc_info) == ("INFO", None)
    assert "failing" in record.getMessage()
    assert "asked to be run again in 77 s" in record.getMessage()
    assert [kind for kind, *_ in told] == ["failed"]


@pytest.mark.parametrize("error", [MemoryError("all"), SystemExit(3), GeneratorExit(), BaseException("odd")])
def test_bad_input_memory_error_and_system_exit_are_failed_attempts(bus: Bus, signal: Signal, error: BaseException):
    """Bad input, MemoryError and SystemExit in a receiver are failed attempts, limited in number, then dead."""
    fails(signal, error, retry=Retry(max_attempts=2))
    signal.send(None)
    bus.work()
    assert rows() == [("failing", "pending", 1)]

    bus.come_again()

    assert rows() == [("failing", "dead", 2)]


def test_promise_5_a_failing_receiver_does_not_affect_others(bus: Bus, signal: Signal):
    """In a message and in a batch only the failed delivery is retried, and it wrote nothing."""
    ran = []
    connect(signal, lambda number, **kwargs: ran.append(("before", number)), "before")

    def receiver_that_breaks_its_transaction(sender, number, **kwargs):
        Academy.objects.create(name="phantom", slug="phantom")
        Academy.objects.create(name="phantom", slug="phantom")

    connect(signal, receiver_that_breaks_its_transaction, "failing")
    connect(signal, lambda number, **kwargs: ran.append(("after", number)), "after")
    with transaction.atomic():
        for number in range(3):
            signal.send(None, number=number)
    assert bus.work() == 1

    assert ran == [(when, number) for number in range(3) for when in ("before", "after")]
    assert rows() == [("failing", "pending", 1)] * 3
    assert not Academy.objects.exists()
    ran.clear()
    bus.come_again()
    assert ran == []


@pytest.mark.parametrize("raw", [True, False])
def test_a_receiver_that_swallows_a_database_error_is_not_done(bus: Bus, signal: Signal, raw: bool):
    """The transaction of the receiver can only be rolled back, so the attempt fails."""

    def receiver_that_swallows(**kwargs):
        Academy.objects.create(name="lost", slug="lost")
        try:
            if raw:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT no_such_column")
            else:
                Academy.objects.create(name="lost", slug="lost")
        except DatabaseError:
            pass

    connect(signal, receiver_that_swallows)
    signal.send(None)
    bus.work()

    if raw and connection.vendor in {"sqlite", "mysql"}:  # a failed statement does not end its transaction
        assert Academy.objects.count() == 1
        return
    assert not Academy.objects.exists()
    assert "put what may fail into an atomic() of its own" in only().error


def test_a_receiver_that_closes_its_connection_fails_alone(bus: Bus, signal: Signal):
    """The failure is still recorded, and the next receiver has a connection."""
    ran = []

    def receiver_that_closes_its_connection(**kwargs):
        connection.close()

    connect(signal, receiver_that_closes_its_connection, "closing")
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after")
    signal.send(None)
    bus.work()

    assert ran == [0]
    assert rows() == [("closing", "pending", 1)]


@pytest.mark.parametrize("database", [DATABASE or "postgres"])  # SQLite has no connections to end
def test_a_connection_that_the_database_ended_fails_one_attempt(bus: Bus, signal: Signal):
    """The failure is recorded through a new connection."""
    ran = []
    cut = "KILL connection_id()" if connection.vendor == "mysql" else "SELECT pg_terminate_backend(pg_backend_pid())"

    def receiver_whose_connection_is_cut(**kwargs):
        with connection.cursor() as cursor:
            cursor.execute(cut)

    connect(signal, receiver_whose_connection_is_cut, "cut", atomic=False)
    connect(signal, receiver_whose_connection_is_cut, "cut in a transaction")
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after")
    signal.send(None)
    bus.work()

    assert ran == [0]
    assert rows() == [("cut", "pending", 1), ("cut in a transaction", "pending", 1)]


def test_a_failed_atomic_receiver_leaves_no_writes(bus: Bus, signal: Signal):
    """Without atomic its writes stay."""

    def receiver_that_writes_and_raises(**kwargs):
        current_one = current()
        assert current_one is not None
        Academy.objects.create(name=current_one.receiver, slug=current_one.receiver)
        assert connection.in_atomic_block == (current_one.receiver == "atomic")
        raise ValueError

    connect(signal, receiver_that_writes_and_raises, "atomic")
    signal.connect(receiver_that_writes_and_raises, weak=False, dispatch_uid="loose", atomic=False)
    signal.send(None)
    bus.work()

    assert [academy.name for academy in Academy.objects.all()] == ["loose"]
    assert rows() == [("atomic", "pending", 1), ("loose", "pending", 1)]


@pytest.mark.parametrize(
    ("backend", "error"),
    [("nowhere.Cache", InvalidCacheBackendError), ("tests.integration.test_delivery.NeedsALibrary", ImportError)],
)
def test_receivers_share_the_clients_of_caches(bus: Bus, signal: Signal, settings, backend: str, error: type):
    """Otherwise each run would connect anew, because it has its own context, and leave an open connection. A cache that
    cannot be created fails only the receiver that uses it.
    """
    settings.CACHES = {**settings.CACHES, "broken": {"BACKEND": backend}}
    seen: list[Any] = []

    def receiver_that_caches(**kwargs):
        with pytest.raises(error):
            caches["broken"]
        seen.append(caches["default"])

    connect(signal, receiver_that_caches, "caching")
    signal.send(None)
    signal.send(None)
    worker = contextvars.Context()
    worker.run(bus.work)

    first, second = seen
    assert first is second
    assert worker.run(caches.all, initialized_only=True) == [first]  # which are closed after a task


def test_a_receivers_context_does_not_reach_the_next(bus: Bus, signal: Signal):
    """Language, time zone, context variables and the current delivery end with it, also if it fails."""
    seen = []

    def receiver_that_leaks(**kwargs):
        translation.activate("fr")
        timezone.activate("Asia/Tokyo")
        LEAK.set("leaked")
        raise ValueError

    def receiver_that_looks(**kwargs):
        seen.append((translation.get_language(), timezone.get_current_timezone_name(), LEAK.get()))

    connect(signal, receiver_that_leaks)
    connect(signal, receiver_that_looks)
    signal.send(None)
    bus.work()

    assert seen == [("en", "UTC", "clean")]
    assert (translation.get_language(), LEAK.get(), current()) == ("en", "clean", None)


def test_async_receivers_run_in_their_transaction(bus: Bus, signal: Signal):
    """The writes of an `async def` receiver are rolled back if it fails, and committed otherwise."""

    async def async_receiver(sender, fail, **kwargs):
        await Academy.objects.acreate(name="async", slug=f"async-{fail}")
        if fail:
            raise ValueError

    connect(signal, async_receiver, "async")
    signal.send(None, fail=True)
    signal.send(None, fail=False)
    bus.work()

    assert [academy.slug for academy in Academy.objects.all()] == ["async-False"]
    assert rows() == [("async", "pending", 1)]


def test_an_async_receiver_that_follows_a_relation_gets_the_remedy(bus: Bus, signal: Signal):
    """The ledger's error names the option that loads the relation."""

    async def async_receiver(instance, **kwargs):
        str(instance.academy.name)

    connect(signal, async_receiver)
    academy = Academy.objects.create(name="A", slug="a")
    signal.send(None, instance=Cohort.objects.create(academy=academy, name="C", slug="c"))
    bus.work()

    (failed,) = Delivery.objects.exclude(error="")
    assert failed.error.startswith("SynchronousOnlyOperation")
    assert "select_related=" in failed.error


def test_a_timeout_is_a_failure(bus: Bus, signal: Signal):
    """The receiver is interrupted, and its transaction rolled back."""

    def receiver_that_hangs(**kwargs):
        Academy.objects.create(name="slow", slug="slow")
        time.sleep(60)

    connect(signal, receiver_that_hangs, timeout=0.05)
    signal.send(None)
    bus.work()

    assert only().error.startswith("TimeoutError")
    assert not Academy.objects.exists()


def test_a_failed_on_commit_callback_does_not_run_the_receiver_again(bus: Bus, signal: Signal, caplog):
    """The delivery is done; the callback's error is logged."""

    def receiver_that_defers(**kwargs):
        Academy.objects.create(name="once", slug="once")
        transaction.on_commit(lambda: 1 / 0)

    connect(signal, receiver_that_defers)
    signal.send(None)
    bus.work()

    assert Academy.objects.count() == 1
    assert not Delivery.objects.exists()
    assert len(tracebacks(caplog)) == 1

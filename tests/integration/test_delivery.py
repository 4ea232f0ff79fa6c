"""Promises 4 and 5: each receiver on its own, and what fails is kept, tried again and told."""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from signalbus import Reject, Retry, RetryLater, Signal, current, delivery_dead, delivery_failed
from signalbus.exceptions import CascadeError
from signalbus.models import Delivery, Message
from signalbus.receiving.delivery import deliver
from tasks.admissions.models import Academy, Cohort

from .bus import QUEUE, Bus, connect, new_signal, only, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

ONCE = Retry(max_attempts=1)
LEAK: contextvars.ContextVar[str] = contextvars.ContextVar("leak", default="clean")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """Every test here runs on both databases."""
    return str(request.param)


@pytest.fixture
def bus(valkey, database_url: str, broker_url: str) -> Bus:
    """The broker, with a database behind it."""
    return Bus(valkey.redis_url)


@pytest.fixture
def signal() -> Signal:
    """A signal without receivers."""
    return new_signal()


@pytest.fixture
def told() -> Iterator[list[tuple[str, str, int, str]]]:
    """What delivery_failed and delivery_dead tell: (which, receiver, attempt, error)."""
    heard: list[tuple[str, str, int, str]] = []

    def on_failed(sender, delivery, error, **kwargs):
        heard.append(("failed", delivery.receiver, delivery.attempt, repr(error)))

    def on_dead(sender, delivery, error, **kwargs):
        heard.append(("dead", delivery.receiver, delivery.attempt, repr(error)))

    delivery_failed.connect(on_failed)
    delivery_dead.connect(on_dead)
    yield heard
    delivery_failed.disconnect(on_failed)
    delivery_dead.disconnect(on_dead)


def fails(signal: Signal, error: BaseException, uid: str = "failing", **options: Any) -> None:
    """Connect a receiver that raises."""

    def receiver_that_raises(**kwargs):
        raise error

    connect(signal, receiver_that_raises, uid, **options)


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of the bus's log records that hold a traceback."""
    return [record.getMessage() for record in caplog.records if record.name == "signalbus" and record.exc_info]


def test_promise_4_a_delivery_that_succeeds_writes_nothing(bus: Bus, signal: Signal):
    """No row, and no statement at all, for what needs no rows and goes well."""
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "well", atomic=False)
    signal.send(None)

    with CaptureQueriesContext(connection) as queries:
        bus.work()

    assert ran == [1]
    assert len(queries) == 0
    assert not Message.objects.exists()


def test_a_failure_is_kept_logged_once_and_told(bus: Bus, signal: Signal, told, caplog):
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


def test_error_and_traceback_are_cut(bus: Bus, signal: Signal):
    """However long a receiver's error is, and whatever characters it holds, its row is small, and can be written."""
    fails(signal, ValueError("\x00\ud800" + "x" * 1_000_000))
    signal.send(None)
    bus.work()

    assert len(only().error) < 2100
    assert len(only().traceback) <= 8000 + 100
    assert only().error.startswith("ValueError: \\x00\\ud800")


def test_a_failure_is_tried_again_until_it_succeeds(bus: Bus, signal: Signal, told):
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
    """Retry(max_attempts=1): dead at once, with one log record and delivery_dead."""
    fails(signal, ValueError("no luck"), retry=ONCE)
    signal.send(None)
    bus.work()

    assert rows() == [("failing", "dead", 1)]
    assert only().ended_at is not None
    assert told == [("dead", "failing", 1, "ValueError('no luck')")]
    assert len(tracebacks(caplog)) == 1
    assert bus.come_again() == 0


def test_reject_makes_it_dead_at_once(bus: Bus, signal: Signal, told):
    """A receiver that says that it will never succeed is not tried again."""
    fails(signal, Reject("never"))
    signal.send(None)
    bus.work()

    assert rows() == [("failing", "dead", 1)]
    assert only().error == "Reject: never"
    assert [kind for kind, *_ in told] == ["dead"]


@pytest.mark.parametrize(("delay", "at_least"), [(77, 75), (1e30, 3e7), (-5, -1)])
def test_retry_later_is_obeyed(bus: Bus, signal: Signal, delay: float, at_least: float):
    """It counts as an attempt, and comes again after its own delay; one that no calendar holds is cut."""
    fails(signal, RetryLater(delay))
    signal.send(None)
    bus.work()

    row = only()
    assert (row.state, row.attempts) == ("pending", 1)
    assert row.failed_at is not None
    assert (row.due_at - row.failed_at).total_seconds() >= at_least


@pytest.mark.parametrize("error", [MemoryError("all"), SystemExit(3), GeneratorExit(), BaseException("odd")])
def test_bad_input_memory_error_and_system_exit_are_failed_attempts(bus: Bus, signal: Signal, error: BaseException):
    """Bad input, MemoryError and SystemExit in a receiver: a failed attempt; bounded; then dead."""
    fails(signal, error, retry=Retry(max_attempts=2))
    signal.send(None)
    bus.work()
    assert rows() == [("failing", "pending", 1)]

    bus.come_again()

    assert rows() == [("failing", "dead", 2)]


def test_promise_5_one_failing_receiver_disturbs_no_other(bus: Bus, signal: Signal):
    """In a message and in a batch: only what failed is tried again, and what failed wrote nothing."""
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
    """Its transaction can only be rolled back: that is a failure, not a success that wrote nothing."""

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

    if raw and connection.vendor == "sqlite":  # a failed statement does not end its transaction
        assert Academy.objects.count() == 1
        return
    assert not Academy.objects.exists()
    assert "put what may fail into an atomic() of its own" in only().error


def test_a_receiver_that_closes_its_connection_fails_alone(bus: Bus, signal: Signal):
    """Its failure can still be written, and the next receiver has a connection."""
    ran = []

    def receiver_that_closes_its_connection(**kwargs):
        connection.close()

    connect(signal, receiver_that_closes_its_connection, "closing")
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after")
    signal.send(None)
    bus.work()

    assert ran == [0]
    assert rows() == [("closing", "pending", 1)]


def test_a_connection_that_the_database_ended_fails_one_attempt(bus: Bus, signal: Signal):
    """The failure of a receiver whose connection was cut is written through a new one."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connections to end")
    ran = []

    def receiver_whose_connection_is_cut(**kwargs):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    connect(signal, receiver_whose_connection_is_cut, "cut", atomic=False)
    connect(signal, receiver_whose_connection_is_cut, "cut in a transaction")
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after")
    signal.send(None)
    bus.work()

    assert ran == [0]
    assert rows() == [("cut", "pending", 1), ("cut in a transaction", "pending", 1)]


def test_atomic_rolls_back_and_without_it_what_was_written_stays(bus: Bus, signal: Signal):
    """atomic=True: a failed attempt leaves nothing; atomic=False: the receiver's own business."""

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


def test_what_a_receiver_activates_does_not_reach_the_next(bus: Bus, signal: Signal):
    """Language, time zone, context variables and the current delivery end with the receiver, also if it fails."""
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
    """`async def` with the ORM: what it writes is rolled back if it fails, and kept if it does not."""

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


def test_a_timeout_is_a_failure(bus: Bus, signal: Signal):
    """A receiver that takes longer than its timeout is interrupted, and its transaction rolled back."""

    def receiver_that_hangs(**kwargs):
        Academy.objects.create(name="slow", slug="slow")
        time.sleep(60)

    connect(signal, receiver_that_hangs, timeout=0.05)
    signal.send(None)
    bus.work()

    assert only().error.startswith("TimeoutError")
    assert not Academy.objects.exists()


def test_a_deferred_callback_that_fails_does_not_run_the_receiver_again(bus: Bus, signal: Signal, caplog):
    """What was committed is done: the callback's error is logged, and no row sends the receiver to write twice."""

    def receiver_that_defers(**kwargs):
        Academy.objects.create(name="once", slug="once")
        transaction.on_commit(lambda: 1 / 0)

    connect(signal, receiver_that_defers)
    signal.send(None)
    bus.work()

    assert Academy.objects.count() == 1
    assert not Delivery.objects.exists()
    assert len(tracebacks(caplog)) == 1


# Rows


def test_bad_input_a_missing_row_is_skipped_or_fails(bus: Bus, signal: Signal, told):
    """Bad input, a reference to a row that does not exist: as on_missing says; a skip is recorded with its reason."""
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "skips")
    connect(signal, lambda **kwargs: ran.append(2), "fails", on_missing="fail")
    academy = Academy.objects.create(name="A", slug="a")
    signal.send(None, instance=academy)
    pk = academy.pk
    academy.delete()
    bus.work()

    assert ran == []
    assert rows() == [("fails", "pending", 1), ("skips", "skipped", 1)]
    assert f"admissions.Academy {pk}" in Delivery.objects.get(receiver="skips").error
    assert [(kind, receiver) for kind, receiver, *_ in told] == [("failed", "fails")]


def test_a_receivers_own_missing_row_is_its_failure(bus: Bus, signal: Signal):
    """DoesNotExist from the receiver's own query is an error like any other."""
    connect(signal, lambda **kwargs: Academy.objects.get(pk=-1), "own")
    signal.send(None)
    bus.work()

    assert rows() == [("own", "pending", 1)]


@pytest.mark.parametrize("count", [1, 50])
def test_one_query_for_each_model_and_receiver(bus: Bus, signal: Signal, count: int):
    """However many rows a message refers to, inside the receiver's transaction; and each receiver has its own."""
    seen: list[list[Any]] = []

    def receiver(sender, academies, users, nested, **kwargs):
        assert connection.in_atomic_block
        academies[0].name = "changed by the first receiver"
        seen.append([*academies, *users, nested["deep"][0]])

    connect(signal, receiver, "first", atomic=True)
    connect(signal, receiver, "second", atomic=True)
    academies = [Academy.objects.create(name="A", slug=f"a{number}") for number in range(count)]
    users = [User.objects.create(username=f"u{number}") for number in range(count)]
    signal.send(None, academies=academies, users=users, nested={"deep": (academies[0],)})

    with CaptureQueriesContext(connection) as queries:
        bus.work()

    selects = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert len(selects) == 4
    first, second = seen
    assert first == second == [*academies, *users, academies[0]]
    assert not {id(row) for row in first} & {id(row) for row in second}
    assert rows() == []


def test_rows_are_as_they_are_now_and_come_through_the_base_manager(bus: Bus, signal: Signal, monkeypatch):
    """A default manager may hide rows; and what changed since send() is seen."""
    seen = []
    connect(signal, lambda instance, **kwargs: seen.append((instance.name, instance._state.db)), "seer")
    academy = Academy.objects.create(name="before", slug="a")
    signal.send(None, instance=academy)
    Academy.objects.update(name="after")

    monkeypatch.setitem(Academy._meta.__dict__, "default_manager", None)
    bus.work()

    assert seen == [("after", "default")]


class ReadFromReplica:
    """A router that reads elsewhere."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        """Name a database that does not exist, so that reading there fails."""
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        """Name the one there is."""
        return "default"


def test_rows_come_from_the_database_that_is_written_to(bus: Bus, signal: Signal):
    """A replica may not have them yet."""
    seen = []
    connect(signal, lambda instance, **kwargs: seen.append(instance.pk), "seer")
    academy = Academy.objects.create(name="A", slug="a")
    with override_settings(DATABASE_ROUTERS=[ReadFromReplica()]):
        signal.send(None, instance=academy)
        bus.work()

    assert seen == [academy.pk]


# The current delivery, and cascades


def test_current_and_the_cascade(bus: Bus):
    """Inside a receiver current() tells what runs; what it sends knows its parent, its root and its path."""
    first, second = new_signal(), new_signal()
    seen: list[Any] = []

    def on_first(**kwargs):
        seen.append(current())
        second.send(None)

    connect(first, on_first, "on first")
    connect(second, lambda **kwargs: seen.append(current()), "on second")
    assert current() is None
    sent = first.send(None)
    bus.work()
    bus.work()

    parent, child = seen
    assert (parent.message_id, parent.root, parent.parent, parent.path) == (sent.id, sent.id, None, ())
    assert (parent.signal, parent.receiver, parent.attempt) == (first.name, "on first", 1)
    assert (child.root, child.parent, child.path) == (sent.id, sent.id, (first.name,))


def test_bad_input_a_cascade_too_deep_is_refused_with_its_path(bus: Bus, signal: Signal):
    """Bad input, a cascade too deep: an error at send() that names the path of signals."""

    def receiver_that_sends_again(**kwargs):
        signal.send(None)

    connect(signal, receiver_that_sends_again, retry=ONCE)
    with override_settings(SIGNALBUS={"MAX_CASCADE": 4}):
        signal.send(None)
        turns = 0
        while bus.work():
            turns += 1

    assert turns == 4
    assert rows() == [("receiver_that_sends_again", "dead", 1)]
    assert only().error.startswith(CascadeError.__name__)
    assert " > ".join([signal.name] * 5) in only().error


# Batches, queues, open signals


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

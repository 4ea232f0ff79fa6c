"""Group commits: brief deliveries of one Celery message share a commit, and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from psycopg.sql import SQL, Literal

from signalbus import Reject, Retry, Signal
from signalbus.ledger import attempts as ledger
from signalbus.ledger.base.clock import Now
from signalbus.models import Delivery, FailedAttempt, State
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes, runtimes
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.running import group_commit, grouping
from signalbus.receiving.running.attempt import deliver_attempt
from tasks.admissions.models import Academy
from tests.servers import wait_until

from .bus import QUEUE, Bus, connect, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Callable


NUMBER: ContextVar[int] = ContextVar("number", default=-1)


@pytest.fixture(autouse=True)
def brief(database: str, monkeypatch):
    """Let each run count as brief on a busy machine, in a process without estimates."""
    if database == "mariadb":
        pytest.skip("no UPDATE there returns what it took: nothing shares a commit")
    monkeypatch.setattr(group_commit, "BRIEF", 5.0)
    monkeypatch.setattr(group_commit, "WORTH_TELLING", 5.0)
    monkeypatch.setattr(runtimes, "_alone_until", {})
    monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)


@pytest.fixture
def durable() -> Signal:
    """A durable signal without receivers."""
    return new_signal(durable=True)


@pytest.fixture
def groups(monkeypatch) -> list[int]:
    """The number of deliveries in each group that is taken."""
    sizes: list[int] = []
    real = ledger.take_together

    def take_together(ids: Any, **more: Any) -> Any:
        sizes.append(len(ids))
        return real(ids, **more)

    monkeypatch.setattr(ledger, "take_together", take_together)
    return sizes


def write(number: int, **kwargs: Any) -> None:
    """Write a row."""
    Academy.objects.create(name="A", slug=f"a{number}")


def written() -> list[int]:
    """Return which rows exist."""
    return sorted(int(slug[1:]) for slug in Academy.objects.values_list("slug", flat=True))


def send(signal: Signal, count: int) -> None:
    """Send numbered messages in one batch."""
    signal.send_many(None, [{"number": number} for number in range(count)])


def statements(run: Callable[[], object]) -> list[str]:
    """Return the first word of each statement that reached the server."""
    with CaptureQueriesContext(connection) as queries:
        run()
    return [query["sql"].split()[0] for query in queries if query["sql"] and not query["sql"].startswith("QUERY = ")]


def states() -> dict[int, tuple[str, int]]:
    """Return (state, attempts) of the deliveries, in order."""
    return dict(enumerate(Delivery.objects.order_by("id").values_list("state", "attempts")))


def at(position: int, misbehave: Callable[[], object]) -> Callable[..., None]:
    """Make a receiver that writes, and misbehaves at one number."""

    def receiver(number: int, **kwargs: Any) -> None:
        write(number)
        if number == position:
            misbehave()

    return receiver


def test_one_statement_takes_the_group_and_one_commit_ends_it(bus: Bus, durable: Signal):
    """Each of 32 deliveries costs its savepoint and its own statements."""
    connect(durable, write, "receiver")
    send(durable, 32)

    seen = statements(bus.work)

    assert written() == list(range(32))
    assert rows() == [("receiver", "done", 1)] * 32
    assert seen.count("UPDATE") == 1
    if connection.vendor == "postgresql":  # the end of one goes with the beginning of the next
        assert (seen.count("SAVEPOINT"), seen.count("RELEASE")) == (1, 32)
        assert len(seen) == 1 + 2 * 32 + 1 + 2  # the take, and the end of the last; with BEGIN and COMMIT
    else:
        assert seen.count("SAVEPOINT") == seen.count("RELEASE") == 32
        assert len(seen) == 1 + 3 * 32 + 2


@pytest.mark.parametrize("option", [{}, {"prepare_threshold": 0}])
def test_prepared_statements_use_single_savepoints(bus: Bus, durable: Signal, option: dict[str, Any], caplog):
    """Two statements at once cannot be prepared."""
    if connection.vendor != "postgresql":
        pytest.skip("psycopg's options")
    before = connection.settings_dict["OPTIONS"]
    connection.close()
    connection.settings_dict["OPTIONS"] = {**before, "server_side_binding": True, **option}
    try:
        connect(durable, write, "receiver")
        send(durable, 4)
        bus.work()

        assert (written(), rows()) == ([0, 1, 2, 3], [("receiver", "done", 1)] * 4)
        assert "could not share" not in caplog.text
    finally:
        connection.close()
        connection.settings_dict["OPTIONS"] = before


def test_at_most_32_share_a_commit(bus: Bus, durable: Signal, groups: list[int]):
    """A batch of 70 is three commits."""
    connect(durable, write, "receiver")
    send(durable, 70)

    bus.work()

    assert groups == [32, 32, 6]
    assert written() == list(range(70))


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_rows_of_a_group_are_found_by_their_keys(bus: Bus, durable: Signal):
    """This holds for small tables and wrong statistics, too."""
    connect(durable, write, "write")
    for _ in range(3):
        send(durable, 100)
        Delivery.objects.update(state=State.DONE, ended_at=Now())
    send(durable, grouping.MOST)
    ids = list(Delivery.objects.filter(state=State.PUBLISHED).values_list("id", flat=True))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        taken, _ = ledger.take_together(ids, worker="w", limits=group_commit.LIMITS, most=20, using="default")
    assert len(taken) == grouping.MOST
    with connection.cursor() as cursor:
        explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        cursor.execute(f"{explain} {queries[-1]['sql']}")
        plan = str(cursor.fetchall())
    assert "Seq Scan" not in plan
    assert "SCAN" not in plan


def test_the_time_of_a_commit_is_limited(bus: Bus, durable: Signal, monkeypatch):
    """Deliveries that do not fit are requeued, and share the next commit."""
    monkeypatch.setattr(group_commit, "BRIEF", 0.0)
    connect(durable, write, "receiver")
    send(durable, 4)

    bus.work()

    assert written() == [0, 1, 2, 3]
    assert rows() == [("receiver", "done", 1)] * 4


def test_a_failure_is_rolled_back_alone_and_settled_in_the_same_commit(bus: Bus, durable: Signal, told):
    """Promise 5: of ten in a group one fails; its writes are gone, the others' stay, and it is reported."""

    def fail() -> None:
        raise ValueError("no luck")

    connect(durable, at(4, fail), "receiver")
    send(durable, 10)
    bus.work()

    assert written() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert states() == {number: ("pending" if number == 4 else "done", 1) for number in range(10)}
    assert told == [("failed", "receiver", 1, "ValueError('no luck')")]
    assert Delivery.objects.get(state=State.PENDING).error == "ValueError: no luck"

    bus.come_again()
    assert states()[4] == ("pending", 2)


def connect_two(signal: Signal, misbehave: Callable[[], object] = int) -> None:
    """Connect two receivers: the first writes under even numbers; the second under odd ones, and misbehaves."""

    def first(number: int, **kwargs: Any) -> None:
        write(2 * number)

    def second(number: int, **kwargs: Any) -> None:
        write(2 * number + 1)
        misbehave()

    connect(signal, first, "first")
    connect(signal, second, "second")


def test_two_receivers_share_a_commit(bus: Bus, durable: Signal, groups: list[int]):
    """The receivers of a message need not be one: each has its own savepoint and its own row."""
    connect_two(durable)
    send(durable, 3)
    bus.work()

    assert groups == [6]
    assert written() == [0, 1, 2, 3, 4, 5]
    assert rows() == [("first", "done", 1)] * 3 + [("second", "done", 1)] * 3


def test_a_failing_receiver_does_not_undo_the_other_receiver_of_its_group(bus: Bus, durable: Signal, groups: list[int]):
    """Only its own writes are rolled back, in each of its deliveries; the other receiver runs once."""

    def fail() -> None:
        raise ValueError

    connect_two(durable, fail)
    send(durable, 3)
    bus.work()

    assert groups == [6]
    assert written() == [0, 2, 4]
    assert rows() == [("first", "done", 1)] * 3 + [("second", "pending", 1)] * 3


def fail_at(*positions: int, error: type[Exception] = ValueError) -> Callable[..., None]:
    """Make a receiver that writes, leaves a callback, and raises at some numbers."""

    def receiver(number: int, **kwargs: Any) -> None:
        write(number)
        transaction.on_commit(lambda: called.append(number))
        if number in positions:
            raise error

    called: list[int] = []
    receiver.called = called  # type: ignore[attr-defined]
    return receiver


def test_failures_that_follow_each_other_share_a_savepoint(bus: Bus, durable: Signal):
    """A failure is one statement more than the receiver's own, on SQLite until the journal of a savepoint is long."""
    connect(durable, fail_at(*range(16)), "receiver")
    send(durable, 16)

    seen = statements(bus.work)

    assert written() == []
    assert rows() == [("receiver", "pending", 1)] * 16
    assert seen.count("ROLLBACK") == 16
    if connection.vendor == "postgresql":  # the release goes with the last rollback
        assert (seen.count("SAVEPOINT"), seen.count("RELEASE")) == (1, 0)
    else:  # four rows have changed in each
        assert seen.count("SAVEPOINT") == seen.count("RELEASE") == 4


def test_a_savepoint_that_was_kept_holds_only_the_next_delivery(bus: Bus, durable: Signal):
    """After failures, what the next delivery writes and its callbacks stay, and a later failure does not undo them."""
    receiver = fail_at(0, 1, 3, 5, 6)
    connect(durable, receiver, "receiver")
    send(durable, 8)

    bus.work()

    assert written() == receiver.called == [2, 4, 7]  # type: ignore[attr-defined]
    assert [state for state, _ in states().values()].count("done") == 3


def test_the_error_of_an_earlier_attempt_ends_with_a_success(bus: Bus, durable: Signal, groups: list[int]):
    """In a group commit of retries the error stays in the rows of deliveries that fail again."""
    failing: dict[int, type[Exception]] = dict.fromkeys(range(4), ValueError)

    def receiver(number: int, **kwargs: Any) -> None:
        if number in failing:
            raise failing[number](number)

    connect(durable, receiver, retry=Retry(base_delay=0, jitter=False))
    send(durable, 4)
    bus.work()
    failing = {1: ValueError, 3: KeyError}
    groups.clear()

    with CaptureQueriesContext(connection) as queries:
        bus.come_again()

    assert groups == [4]
    done, again = Delivery.objects.filter(state=State.DONE), Delivery.objects.exclude(state=State.DONE)
    assert set(done.values_list("attempts", "error", "traceback", "error_group")) == {(2, "", "", None)}
    assert sorted(again.values_list("state", "error")) == [("pending", "KeyError: 3"), ("pending", "ValueError: 1")]
    assert all(row.traceback and row.error_group for row in again)
    groups_kept = FailedAttempt.objects.filter(number=2).values_list("delivery", "error_group")
    assert set(again.values_list("id", "error_group")) == set(groups_kept)
    assert len(set(again.values_list("error_group"))) == 2  # of a new error a new group
    assert FailedAttempt.objects.exclude(traceback="").count() == 5  # one that is equal is not kept again
    written_anew = [query["sql"] for query in queries if "error_group = NULL" in (query["sql"] or "")]
    assert len(written_anew) == 1  # of the two that are done, and none of all four


def test_a_database_error_is_rolled_back_alone(bus: Bus, durable: Signal, groups: list[int], caplog):
    """A receiver that violates a constraint fails, and the others still share the commit."""
    write(2)
    connect(durable, write, "receiver")
    send(durable, 5)

    bus.work()

    assert (groups, written()) == ([5], [0, 1, 2, 3, 4])
    assert states() == {number: ("pending" if number == 2 else "done", 1) for number in range(5)}
    assert "could not share" not in caplog.text


def test_a_rejection_is_settled_in_the_same_commit(bus: Bus, durable: Signal, told):
    """Every outcome can be settled in a group."""

    def reject() -> None:
        raise Reject("never")

    connect(durable, at(0, reject), "receiver")
    send(durable, 3)
    bus.work()

    assert states() == {0: ("dead", 1), 1: ("done", 1), 2: ("done", 1)}
    assert [which for which, *_ in told] == ["dead"]


def test_listeners_are_called_after_the_commit(bus: Bus, durable: Signal, listening):
    """A listener finds the rows of its events."""
    open_: dict[str, bool] = {}
    listening("done", "failed")(lambda event: open_.update({event.kind: connection.in_atomic_block}))

    def fail() -> None:
        raise ValueError

    connect(durable, at(0, fail), "receiver")
    send(durable, 3)
    bus.work()

    assert open_ == {"done": False, "failed": False}


def swallow_an_error() -> None:
    """Go on after a database error."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
    except DatabaseError:
        transaction.set_rollback(True)  # which Django does for errors of the ORM


def raw(sql: str) -> Callable[[], None]:
    """Return a function that runs a statement through Django's cursor."""

    def run() -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    return run


def driver(name: str) -> Callable[[], object]:
    """Return a function that ends the transaction without Django's knowledge."""

    def run() -> None:
        getattr(connection.connection, name)()

    return run


def commit_and_go_on() -> None:
    """End the transaction without Django's knowledge, and begin another."""
    driver("commit")()
    Academy.objects.filter(slug="none").update(name="changed")


def close() -> None:
    """Close the group's connection."""
    connections["default"].close()


BREAKS: dict[str, tuple[Callable[[], object], tuple[str, int]]] = {
    # how, and what has become of its own delivery: as if it had run alone
    "set_rollback": (lambda: transaction.set_rollback(True), ("pending", 1)),
    "commit": (transaction.commit, ("pending", 1)),
    "swallowed error": (swallow_an_error, ("pending", 1)),
    "close": (close, ("pending", 1)),
    "raw rollback": (raw("/* a */ ROLLBACK"), ("published", 0)),
    "raw commit": (raw("commit"), ("done", 1)),
    "driver's rollback": (driver("rollback"), ("pending", 1)),
    "driver's commit": (driver("commit"), ("done", 1)),
    "driver's commit, and on": (commit_and_go_on, ("done", 1)),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_transaction_is_no_attempt_of_the_other_deliveries(bus: Bus, durable: Signal, how: str):
    """Uncommitted deliveries run again alone, and have their effect once."""
    misbehave, end = BREAKS[how]
    connect(durable, at(3, misbehave), "receiver")
    send(durable, 8)

    bus.work()

    assert [number for number in written() if number != 3] == [0, 1, 2, 4, 5, 6, 7]
    others = {number: state for number, state in states().items() if number != 3}
    assert others == dict.fromkeys(others, ("done", 1))
    if how not in {"raw rollback", "raw commit"}:  # which run alone, as they always have
        assert states()[3] == end


@pytest.mark.parametrize("position", [0, 3])
@pytest.mark.parametrize("database", ["postgres"])
def test_a_rollback_by_the_driver_is_no_attempt_of_the_other_deliveries(bus: Bus, durable: Signal, position: int):
    """The driver begins another transaction, which could be committed unnoticed, also by the last delivery."""
    called: list[int] = []

    def receiver(number: int, **kwargs: Any) -> None:
        transaction.on_commit(lambda: called.append(number))
        write(number)
        if number == position:
            driver("rollback")()
            write(100)

    connect(durable, receiver, "receiver")
    send(durable, 4)

    bus.work()

    others = [number for number in range(4) if number != position]
    assert written() == [*others, 100]
    assert [number for number in called if number != position] == others
    assert [states()[number] for number in others] == [("done", 1)] * 3


def test_a_savepoint_by_hand_does_not_end_the_transaction(bus: Bus, durable: Signal):
    """A receiver may return to a savepoint of its own."""

    def go_back() -> None:
        by_hand = getattr(transaction, "savepoint_create", None) or transaction.savepoint  # the name since Django 6.1
        savepoint = by_hand()
        Academy.objects.create(name="B", slug="b99")
        transaction.savepoint_rollback(savepoint)

    connect(durable, at(1, go_back), "receiver")
    send(durable, 3)
    bus.work()

    assert written() == [0, 1, 2]
    assert rows() == [("receiver", "done", 1)] * 3


def test_after_a_failed_commit_each_delivery_runs_alone(bus: Bus, durable: Signal):
    """A constraint that is checked at the commit fails only the delivery that broke it."""

    def orphan() -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO admissions_cohort (academy_id, name, slug) VALUES (999999, 'orphan', 'orphan')")

    connect(durable, at(2, orphan), "receiver")
    send(durable, 6)
    bus.work()

    assert written() == [0, 1, 3, 4, 5]
    assert states() == {number: ("pending" if number == 2 else "done", 1) for number in range(6)}


def test_callbacks_run_after_the_group_commit(bus: Bus, durable: Signal, caplog):
    """All are called, in order, outside of the transaction, also if one fails; those of a failed delivery are not."""
    called: list[tuple[int, bool]] = []

    def receiver(number: int, **kwargs: Any) -> None:
        def callback() -> None:
            called.append((number, connection.in_atomic_block))
            if number == 1:
                raise ValueError("too late")

        transaction.on_commit(callback)
        if number == 2:
            raise ValueError

    connect(durable, receiver, "receiver")
    send(durable, 5)
    bus.work()

    assert called == [(0, False), (1, False), (3, False), (4, False)]
    assert states() == {number: ("pending" if number == 2 else "done", 1) for number in range(5)}
    assert "a callback that it left with on_commit failed" in caplog.text


def test_callbacks_run_in_the_context_of_their_receiver(bus: Bus, durable: Signal, caplog):
    """A failed one is logged by the names of its delivery."""
    seen: list[tuple[int, int]] = []

    def receiver(number: int, **kwargs: Any) -> None:
        NUMBER.set(number)

        def callback() -> None:
            seen.append((number, NUMBER.get()))
            if number == 1:
                raise SystemExit

        transaction.on_commit(callback)

    connect(durable, receiver, "receiver")
    send(durable, 3)
    bus.work()

    assert seen == [(number, number) for number in range(3)]
    assert NUMBER.get() == -1
    (record,) = [each for each in caplog.records if "on_commit" in each.message]
    assert record.message.startswith(f"signalbus: {durable.name} to receiver is done, but")
    assert record.exc_info is not None
    assert states() == dict.fromkeys(range(3), ("done", 1))


def test_interrupt_in_a_callback_ends_the_worker(bus: Bus, durable: Signal):
    """Ctrl-C is not the receiver's error; committed deliveries stay done."""

    def callback() -> None:
        raise KeyboardInterrupt

    connect(durable, lambda **kwargs: transaction.on_commit(callback), "receiver")
    send(durable, 3)
    with pytest.raises(KeyboardInterrupt):
        bus.work()

    assert states() == dict.fromkeys(range(3), ("done", 1))


def test_a_receivers_messages_are_published_with_the_group_commit(bus: Bus, durable: Signal):
    """Those of a failed delivery are not."""
    other = new_signal(durable=True)
    heard: list[int] = []
    connect(other, lambda number, **kwargs: heard.append(number), "hears")

    def receiver(number: int, **kwargs: Any) -> None:
        other.send(None, number=number)
        if number == 1:
            raise ValueError

    connect(durable, receiver, "sends")
    send(durable, 4)
    bus.work()
    assert bus.work() <= 2  # Celery messages

    assert sorted(heard) == [0, 2, 3]


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL app.tenant = 'the first''s'",
        b"/* mine */ set local app.tenant to 'mine'",
        SQL("SET LOCAL app.tenant = {}").format(Literal("mine")),
        "SELECT set_config('app.tenant', 'mine', true)",
        "CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 1; SET LOCAL app.tenant = 'mine'",
        "DECLARE mine CURSOR FOR SELECT 1",
    ],
    ids=["set", "bytes", "composed", "set_config", "temp", "cursor"],
)
@pytest.mark.parametrize("database", ["postgres"])
def test_a_setting_of_the_transaction_does_not_reach_the_next_delivery(bus: Bus, durable: Signal, statement: Any):
    """One delivery's tenant, for row-level security, is not the next one's."""
    seen: list[tuple[int, str]] = []

    def receiver(number: int, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('app.tenant', true)")
            seen.append((number, cursor.fetchone()[0] or ""))
            if number < 2:
                cursor.execute(statement)

    connect(durable, receiver, "receiver")
    send(durable, 4)
    bus.work()

    assert {tenant for _, tenant in seen} == {""}
    assert {number for number, _ in seen} == {0, 1, 2, 3}
    assert rows() == [("receiver", "done", 1)] * 4


def test_a_copy_in_a_batch_runs_once(bus: Bus, durable: Signal):
    """A copy, in the same Celery message or another, finds its delivery done."""
    connect(durable, write, "receiver")
    send(durable, 3)
    (texts,) = bus.take()

    deliver([*texts, *texts], queue=QUEUE)
    deliver(texts, queue=QUEUE)

    assert written() == [0, 1, 2]
    assert rows() == [("receiver", "done", 1)] * 3


def test_suspect_deliveries_run_alone(bus: Bus, durable: Signal, monkeypatch):
    """A suspect delivery may have ended its worker: each attempt is committed before it runs."""
    claimed: list[object] = []
    real = ledger.claim

    def claim(delivery: Any, **more: Any) -> Any:
        claimed.append(delivery)
        return real(delivery, **more)

    monkeypatch.setattr(ledger, "claim", claim)
    connect(durable, write, "receiver")
    send(durable, 4)
    suspect = Delivery.objects.order_by("id")[1].pk
    Delivery.objects.filter(pk=suspect).update(publications=1)
    bus.work()

    assert claimed == [suspect]
    assert rows() == [("receiver", "done", 1)] * 4


@pytest.mark.parametrize("options", [{"atomic": False}, {"timeout": 5}])
def test_receivers_that_cannot_share_a_commit_run_alone(
    bus: Bus, durable: Signal, monkeypatch, options: dict[str, Any]
):
    """Such a receiver has no transaction, or a limit that would interrupt the group."""
    monkeypatch.delattr(ledger, "take_together")
    connect(durable, write, "receiver", **options)
    send(durable, 3)
    bus.work()

    assert written() == [0, 1, 2]


def test_share_commits_can_be_switched_off(bus: Bus, durable: Signal, monkeypatch):
    """With SHARE_COMMITS=False each delivery has its own commit."""
    monkeypatch.delattr(ledger, "take_together")
    connect(durable, write, "receiver")
    send(durable, 3)
    with override_settings(SIGNALBUS={"SHARE_COMMITS": False}):
        bus.work()

    assert written() == [0, 1, 2]


def test_in_an_open_transaction_there_is_no_group(bus: Bus, durable: Signal, monkeypatch):
    """The transaction of a test never commits; each delivery is settled separately."""
    monkeypatch.delattr(ledger, "take_together")
    connect(durable, write, "receiver")
    send(durable, 3)
    with transaction.atomic():
        bus.work()

    assert written() == [0, 1, 2]


def test_a_kill_during_a_group_is_no_attempt_of_the_other_deliveries(bus: Bus, durable: Signal):
    """Nothing was committed; the broker redelivers all, and each runs alone."""

    def die() -> None:
        raise KeyboardInterrupt  # ends this process as a kill would, without settling anything

    connect(durable, at(3, die), "receiver")
    send(durable, 6)
    (texts,) = bus.take()
    with pytest.raises(KeyboardInterrupt):
        deliver(texts, queue=QUEUE)
    assert written() == []
    assert rows() == [("receiver", "published", 0)] * 6

    deliver(texts, queue=QUEUE, redelivered=True)
    assert rows() == [("receiver", "pending", 0)] * 6


def test_a_delivery_that_waits_for_a_lock_runs_alone_from_then_on(bus: Bus, durable: Signal, monkeypatch):
    """No wait in a group is longer than 20 ms, even if the error is swallowed; no attempt is counted."""
    if connection.vendor != "postgresql":
        pytest.skip("one writer at a time: nobody waits for a row")
    Academy.objects.create(name="hot", slug="a100")
    locked, release = threading.Event(), threading.Event()
    monkeypatch.setattr(grouping, "deliver_attempt", _after(release, deliver_attempt))

    def holder() -> None:
        try:
            with transaction.atomic():
                Academy.objects.select_for_update().get(slug="a100")
                locked.set()
                assert release.wait(20)
        finally:
            connections.close_all()

    def receiver(number: int, **kwargs: Any) -> None:
        if number == 2:
            Academy.objects.filter(slug="a100").update(name="touched")
        write(number)

    connect(durable, receiver, "receiver")
    send(durable, 5)
    thread = threading.Thread(target=holder)
    thread.start()
    try:
        assert locked.wait(20)
        bus.work()
    finally:
        release.set()
        thread.join(20)

    assert rows() == [("receiver", "done", 1)] * 5
    assert written() == [0, 1, 2, 3, 4, 100]
    assert Academy.objects.get(slug="a100").name == "touched"
    assert not runtimes.may_share("receiver")


def _after(event: threading.Event, function: Callable[..., None]) -> Callable[..., None]:
    def run(*args: Any) -> None:
        event.set()
        function(*args)

    return run


def test_a_swallowed_lock_error_counts_too(bus: Bus, durable: Signal):
    """The short lock timeout was the group's, so it runs again without it."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no such error")
    runs: list[int] = []

    def receiver(number: int, **kwargs: Any) -> None:
        runs.append(number)
        if number == 1 and runs.count(1) == 1:
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '55P03'; END $$")
            except DatabaseError:
                return
        write(number)

    connect(durable, receiver, "receiver")
    send(durable, 3)
    bus.work()

    assert written() == [0, 1, 2]
    assert runs.count(1) == 2
    assert rows() == [("receiver", "done", 1)] * 3


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_straggler_in_a_group_frees_the_others_locks(bus: Bus, durable: Signal, goes_on: bool):
    """Others get the locks while it still hangs; in the end each has run once, without a counted attempt."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer, and ends nobody's transaction")
    hung: list[int] = []

    def receiver(number: int, **kwargs: Any) -> None:
        write(number)
        if number == 1 and not hung:
            hung.append(number)
            wait_until(nobody_holds_a_row, what="the others' rows to be free")
            if goes_on:
                Academy.objects.update(name="too late")

    connect(durable, receiver, "receiver")
    send(durable, 4)
    bus.work()

    assert hung == [1]
    assert written() == [0, 1, 2, 3]
    assert rows() == [("receiver", "done", 1)] * 4


def nobody_holds_a_row() -> bool:
    """Return whether all rows are free, seen from another connection."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_all_free).result(15)


def _all_free() -> bool:
    try:
        with transaction.atomic():
            return len(Delivery.objects.select_for_update(skip_locked=True)) == 4
    finally:
        connection.close()

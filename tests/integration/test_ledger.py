"""The ledger's statements on each database: the rows of a send, and who may run them."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from django.db import connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from signalbus.ledger import attempts, operations, sweeps
from signalbus.ledger.attempts import row_claims
from signalbus.ledger.base import recording
from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.recording import Part, record
from signalbus.ledger.sweeps import due
from signalbus.models import Delivery, QueueState, State, StoredMessage
from signalbus.wire.message import Message, delivery_id, to_body, uuid7

from .bus import Bus, connect, elsewhere, new_signal

if TYPE_CHECKING:
    from uuid import UUID

DEFAULT = "default"


def new_part(*recipients: str, queue: str | None = None) -> Part:
    id_ = uuid7()
    message = Message(
        id=id_,
        signal="admissions.cohort_saved",
        payload="[null,{}]",
        recipients=recipients or ("tag",),
        root=id_,
        sent_at=datetime.now(UTC),
    )
    return Part(message, to_body(message), queue)


def recorded(*recipients: str) -> UUID:
    """Record a message to one recipient or more; return the id of its first delivery."""
    part = new_part(*recipients)
    record([part], using=DEFAULT)
    assert part.message.recipients is not None
    return delivery_id(part.message.id, part.message.recipients[0])


def state_of(delivery: UUID) -> tuple[str, int]:
    return Delivery.objects.values_list("state", "attempts").get(id=delivery)


def test_a_message_has_a_row_and_one_for_each_recipient(database_url: str):
    """Each delivery is recorded as published, and checked after its wait."""
    part = new_part("tag", "mail")

    record([part], using=DEFAULT)

    message = StoredMessage.objects.get()
    assert (message.id, message.text, message.sealed) == (part.message.id, part.body, False)
    deliveries = Delivery.objects.order_by("receiver")
    assert [(row.receiver, row.state, row.attempts) for row in deliveries] == [
        ("mail", "published", 0),
        ("tag", "published", 0),
    ]
    for row in deliveries:
        assert row.id == delivery_id(part.message.id, row.receiver)
        assert (row.due_at - row.created_at).total_seconds() == pytest.approx(recording.WAIT, abs=0.1)


def test_parts_of_a_message_share_its_row(database_url: str):
    """A message of two queues is one message."""
    part = new_part("tag")

    record([part, part._replace(message=new_like(part, "mail"), queue="slow")], using=DEFAULT)

    assert StoredMessage.objects.count() == 1
    assert set(Delivery.objects.values_list("receiver", "queue")) == {("tag", ""), ("mail", "slow")}


def new_like(part: Part, *recipients: str) -> Message:
    from dataclasses import replace

    return replace(part.message, recipients=recipients)


@pytest.mark.parametrize("count", [1, 3, 600])
def test_many_messages_are_recorded_together(database_url: str, count: int):
    """A send_many needs few statements."""
    parts = [new_part() for _ in range(count)]

    with CaptureQueriesContext(connections[DEFAULT]) as queries:
        record(parts, using=DEFAULT)

    assert Delivery.objects.count() == StoredMessage.objects.count() == count
    chunks = -(-count // recording.CHUNK)
    one_statement = connections[DEFAULT].vendor == "postgresql"
    statements = [query for query in queries if "INSERT" in query["sql"]]
    assert len(statements) == (1 if one_statement else 2 * chunks)


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("ordered_by", [None, "number"])
def test_the_oldest_sqlite_accepts_the_number_of_values(bus: Bus, ordered_by: str | None):
    """Django supports 3.31, which takes 999 in a statement."""
    signal = new_signal(durable=True, ordered_by=ordered_by)
    connect(signal, lambda **kwargs: None, "receiver")
    connections[DEFAULT].ensure_connection()
    connections[DEFAULT].connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    signal.send_many(None, [{"number": number} for number in range(400)])
    bus.work()

    assert Delivery.objects.filter(state=State.DONE).count() == 400


def test_a_rollback_removes_the_rows(database_url: str):
    """The rows are part of the sender's transaction."""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        record([new_part()], using=DEFAULT)
        raise ZeroDivisionError

    assert not Delivery.objects.exists()
    assert not StoredMessage.objects.exists()


def test_a_take_is_one_statement(database_url: str):
    """The receiver's transaction settles first: after its commit the delivery is done, with attempt one."""
    delivery = recorded()

    with transaction.atomic(), CaptureQueriesContext(connections[DEFAULT]) as queries:
        taken = row_claims.take(delivery, worker="w1", using=DEFAULT)

    assert taken == row_claims.Taken(attempt=1, allowance=0, publications=0)
    assert len(queries) == (2 if connections[DEFAULT].vendor == "mysql" else 1)
    assert state_of(delivery) == ("done", 1)
    row = Delivery.objects.get()
    assert row.worker == "w1"
    assert row.started_at is not None
    assert row.ended_at is not None


def test_failures_of_a_group_commit_are_recorded_like_single_ones(database_url: str):
    """Each row says what `settle` would have written; PostgreSQL takes those of a kind in one statement."""
    outcomes = [
        attempts.Settlement(
            state=State.PENDING, error="E: 'a' \\ %s", traceback='a "b"\nc', delay=5.0, took=0.25, error_group="0a1b"
        ),
        attempts.Settlement(state=State.PENDING, error="E: \x00", delay=0.0),
        attempts.Settlement(state=State.DEAD, error="dead", traceback="t", took=0.001),
        attempts.Settlement(state=State.SKIPPED, error="gone"),
    ]
    columns = ("state", "error", "error_group", "traceback", "runtime_ms", "attempts")

    def outcome_of(delivery: UUID) -> tuple[object, ...]:
        row = Delivery.objects.annotate(waits=F("due_at") - Now()).get(id=delivery)
        waits = round(row.waits.total_seconds(), -1) if row.state == State.PENDING else None
        return (*(getattr(row, name) for name in columns), waits, row.ended_at is None, row.failed_at is None)

    singly, together = [[recorded() for _ in outcomes] for _ in range(2)]
    for delivery, outcome in zip(singly, outcomes, strict=True):
        attempts.settle(delivery, outcome, seen=0, attempt=1)
    with transaction.atomic():
        for delivery in together:
            row_claims.take(delivery, worker="w1", using=DEFAULT)
        with CaptureQueriesContext(connections[DEFAULT]) as queries:
            failed = [(delivery, 1, outcome) for delivery, outcome in zip(together, outcomes, strict=True)]
            attempts.settle_taken(failed, former={}, using=DEFAULT)

    assert [outcome_of(delivery) for delivery in together] == [outcome_of(delivery) for delivery in singly]
    if connections[DEFAULT].vendor == "postgresql":
        assert len(queries) == 3


def test_a_take_that_rolls_back_leaves_the_delivery_as_it_was(database_url: str):
    """The row of a worker that dies is free again, and no attempt is counted."""
    delivery = recorded()

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        row_claims.take(delivery, worker="w1", using=DEFAULT)
        raise ZeroDivisionError

    assert state_of(delivery) == ("published", 0)


def test_a_done_delivery_is_not_taken_again(database_url: str):
    """A second copy of a message has nothing to run."""
    delivery = recorded()
    with transaction.atomic():
        row_claims.take(delivery, worker="w1", using=DEFAULT)

    with transaction.atomic():
        assert row_claims.take(delivery, worker="w2", using=DEFAULT) is None
    assert row_claims.claim(delivery, worker="w2", lease=10, using=DEFAULT) is None


@pytest.mark.parametrize("database", ["postgres"])
def test_no_statement_waits_for_a_running_row(database_url: str):
    """Another worker that asks for the delivery gets nothing, at once."""
    delivery = recorded()

    def attempts_to_take() -> list[object]:
        with transaction.atomic():
            first = row_claims.take(delivery, worker="w2", using=DEFAULT)
        return [first, row_claims.claim(delivery, worker="w2", lease=10, using=DEFAULT)]

    with transaction.atomic():
        row_claims.take(delivery, worker="w1", using=DEFAULT)
        assert elsewhere(attempts_to_take) == [[None, None]]

    assert state_of(delivery) == ("done", 1)


@pytest.mark.parametrize("state", ["published", "pending", "parked"])
@pytest.mark.parametrize("database", ["postgres"])
def test_statements_that_change_rows_skip_running_ones(database_url: str, state: str):
    """These are operations by hand, failed publications and parking: a receiver may take an hour."""
    part = new_part()
    record([part], using=DEFAULT)
    delivery = delivery_id(part.message.id, "tag")
    Delivery.objects.update(state=state, error="ValueError", due_at=Now())

    def change() -> list[object]:
        with connections[DEFAULT].cursor() as cursor:
            cursor.execute("SET lock_timeout = '1s'")
        sweeps.return_due([delivery], 1.0)
        attempts.record_unpublished([(replace(part.message, recorded=True), None)], "away")
        return [
            operations.retry([delivery]),
            operations.retry(None),
            operations.discard([delivery]),
            attempts.unpark(),
            attempts.park(part.message, ["tag"], None, "unknown"),
        ]

    with transaction.atomic():
        row_claims.take(delivery, worker="w1", using=DEFAULT)
        (changed,) = elsewhere(change)

    assert changed == [0, 0, 0, 0, {}]
    assert state_of(delivery) == ("done", 1)


def test_a_claim_counts_before_the_run_and_is_confirmed_by_its_number(database_url: str):
    """A committed claim survives its worker, and no other worker takes it; once it is recorded as lost, the next one
    makes it void.
    """
    delivery = recorded()

    first = row_claims.claim(delivery, worker="w1", lease=0, using=DEFAULT)
    assert state_of(delivery) == ("running", 1)
    assert row_claims.claim(delivery, worker="w2", lease=10, using=DEFAULT) is None
    lost = attempts.Settlement(state=State.PENDING, error="lost")
    assert attempts.settle_lost(delivery, lost, seen=1, attempt=1)
    assert not attempts.settle_lost(delivery, lost, seen=1, attempt=1)
    second = row_claims.claim(delivery, worker="w2", lease=10, using=DEFAULT)

    assert first is not None
    assert second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    with transaction.atomic():
        assert not row_claims.confirm(delivery, 1, worker="w1", using=DEFAULT)
        assert row_claims.confirm(delivery, 2, worker="w2", using=DEFAULT)
    assert state_of(delivery) == ("done", 2)


@pytest.mark.parametrize("database", ["postgres"])
def test_a_claim_waits_for_a_brief_lock_on_its_row(database_url: str):
    """Another worker locked it before it saw that the row is claimed."""
    delivery = recorded()
    claimed = row_claims.claim(delivery, worker="w1", lease=10, using=DEFAULT)
    assert claimed is not None
    locked = threading.Event()

    def look() -> None:
        with transaction.atomic(), connections[DEFAULT].cursor() as cursor:
            cursor.execute("SELECT id FROM signalbus_delivery FOR NO KEY UPDATE")
            locked.set()
            cursor.execute("SELECT pg_sleep(0.3)")

    for settles in (False, True):
        locked.clear()
        looking = threading.Thread(target=lambda: elsewhere(look))
        looking.start()
        assert locked.wait(30)
        if settles:
            done = attempts.Settlement(state=State.DONE)
            assert attempts.settle(delivery, done, seen=claimed.attempt, attempt=claimed.attempt)
        else:
            with transaction.atomic():
                assert row_claims.confirm(delivery, claimed.attempt, worker="w1", using=DEFAULT)
                transaction.set_rollback(True)
        looking.join(30)


def test_a_claim_is_not_taken_before_its_lease_ends(database_url: str):
    """The delivery runs."""
    delivery = recorded()
    row_claims.claim(delivery, worker="w1", lease=60, using=DEFAULT)

    assert row_claims.claim(delivery, worker="w2", lease=60, using=DEFAULT) is None
    with transaction.atomic():
        assert row_claims.take(delivery, worker="w2", using=DEFAULT) is None


def test_a_retry_is_not_taken_early(database_url: str):
    """A late copy of the message does not hurry it."""
    delivery = recorded()
    Delivery.objects.update(state=State.PENDING)

    with transaction.atomic():
        assert row_claims.take(delivery, worker="w1", using=DEFAULT) is None


ODD = ["", "NULL", "null", '"', "\\", '\\"', "{}", "{a,b}", "a,b", " a ", "\n\t", "%s", "é€😀", "'", "$1"]


@pytest.mark.parametrize("most", [1, len(ODD)])
def test_a_recorded_text_is_read_back(database_url: str, most: int):
    """A text may be written by one statement or by many, and contain characters that mean something in SQL."""
    parts = [new_part(f"to {odd}", queue=odd)._replace(subject=f"about {odd}") for odd in ODD]

    assert len(ODD) > recording.FEW
    for start in range(0, len(parts), most):
        record(parts[start : start + most], using=DEFAULT)

    found = Delivery.objects.values_list("message_id", "receiver", "queue", "message__subject", "message__text")
    assert set(found) == {
        (part.message.id, part.message.recipients[0], part.queue, part.subject, part.body)  # type: ignore[index]
        for part in parts
    }


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({}, False),  # published, and open: markers may be needed
        ({"state": State.PENDING, "due_at": Now()}, False),
        ({"state": State.PENDING, "due_at": datetime(2999, 1, 1, tzinfo=UTC)}, True),
        ({"state": State.RUNNING, "due_at": Now()}, False),
        ({"state": State.RUNNING, "due_at": datetime(2999, 1, 1, tzinfo=UTC)}, True),
        ({"state": State.DONE, "ended_at": Now()}, True),
        ({"state": State.DEAD, "ended_at": Now()}, True),
    ],
)
def test_an_idle_sweep_is_one_statement(database_url: str, changes: dict[str, object], idle: bool):
    """Nothing is due, and no published delivery is open."""
    recorded()
    Delivery.objects.update(**changes)

    with CaptureQueriesContext(connections[DEFAULT]) as queries:
        look = due.look()

    assert (look.is_idle, look.is_anything_paused) == (idle, False)
    assert len(queries) == 1
    assert not (idle and (due.anything_due() or due.mark()))


def let_wait(seconds: float) -> None:
    """Let time pass since all publications."""
    from datetime import timedelta

    from django.db.models import F

    Delivery.objects.update(due_at=F("due_at") - timedelta(seconds=seconds))


def come_back(queue: str, marked_at: datetime) -> None:
    """Let a marker return, and the next one after it."""
    from datetime import timedelta

    due.marker_returned(queue, marked_at)
    QueueState.objects.filter(queue=queue).update(seen_at=Now() - timedelta(seconds=due.GRACE))
    due.marker_returned(queue, QueueState.objects.values_list(Now(), flat=True)[0])


@pytest.mark.parametrize("seconds", [0.0, -0.001])
def test_a_delivery_that_is_due_now_is_taken(database_url: str, seconds: float):
    """SQLite has one time for a statement, and compares times as texts."""
    recorded()

    due_now = Delivery.objects.annotate(due=later(seconds)).filter(due__lte=Now())

    assert due_now.exists()


def test_a_backlog_that_waits_is_not_published_again(database_url: str):
    """While no marker has come back, an overdue delivery is late."""
    recorded()
    let_wait(3600)

    assert not due.anything_due()
    assert due.take_due(100) == []


def test_a_delivery_published_before_a_returned_marker_is_lost(database_url: str):
    """The marker was behind it in the queue; a later delivery is late."""
    lost = recorded()
    let_wait(recording.WAIT + 1)
    ((queue, marked_at),) = due.mark()
    recorded()

    come_back(queue, marked_at)

    (row,) = due.take_due(100)
    assert (row.id, row.load().state, row.publications) == (lost, "published", 1)
    assert due.take_due(100) == []


def test_a_delivery_that_runs_is_not_lost(database_url: str):
    """The row of the delivery is locked, and the sweeper skips it."""
    delivery = recorded()
    let_wait(recording.WAIT + 1)
    ((queue, marked_at),) = due.mark()
    come_back(queue, marked_at)
    if connections[DEFAULT].vendor == "sqlite":
        return  # one writer at a time: the sweeper waits until the receiver has ended

    with transaction.atomic():
        row_claims.take(delivery, worker="w1", using=DEFAULT)
        assert elsewhere(lambda: due.take_due(100)) == [[]]


def test_a_marker_is_sent_only_while_a_delivery_is_open(database_url: str):
    """An idle bus sends none; two sweepers send one."""
    assert due.mark() == []
    delivery = recorded()
    assert due.mark() == []  # too young
    let_wait(recording.WAIT)

    assert [queue for queue, _ in due.mark()] == [""]
    assert due.mark() == []

    with transaction.atomic():
        row_claims.take(delivery, worker="w1", using=DEFAULT)
    QueueState.objects.update(marked_at=None)
    assert due.mark() == []


def test_a_marker_that_does_not_come_back_is_sent_again(database_url: str):
    """A marker may be lost like any message."""
    from datetime import timedelta

    from django.db.models import F

    recorded()
    let_wait(recording.WAIT)
    assert len(due.mark()) == 1
    QueueState.objects.update(marked_at=F("marked_at") - timedelta(seconds=due.MARK_AGAIN + 1))

    assert len(due.mark()) == 1


def test_each_queue_has_its_own_marker(database_url: str):
    """A slow queue proves nothing about another."""
    for queue in (None, "email", "slow"):
        record([new_part(queue=queue)], using=DEFAULT)
    let_wait(recording.WAIT + 1)

    marked = dict(due.mark())
    assert sorted(marked) == ["", "email", "slow"]

    come_back("email", marked["email"])
    assert [row.queue for row in due.take_due(100)] == ["email"]


def test_an_old_marker_changes_nothing(database_url: str):
    """A replayed marker proves only what was true before."""
    from datetime import timedelta

    recorded()
    let_wait(recording.WAIT)
    ((queue, marked_at),) = due.mark()
    due.marker_returned(queue, marked_at)

    due.marker_returned(queue, marked_at - timedelta(seconds=60))

    assert QueueState.objects.get().returned_at == marked_at


def test_the_interval_doubles_with_each_publication(database_url: str):
    """A delivery that is lost again and again does not fill the broker."""
    delivery = recorded()
    waits = []
    for _ in range(3):
        let_wait(3600)
        QueueState.objects.update_or_create(queue="", defaults={"proven_at": Delivery.objects.get().created_at})
        (row,) = due.take_due(100)
        whole = row.load()
        waits.append((whole.due_at - whole.clock).total_seconds())  # type: ignore[attr-defined]  # annotated

    assert row.id == delivery
    assert waits == pytest.approx([2 * recording.WAIT, 4 * recording.WAIT, 8 * recording.WAIT], abs=0.5)


def test_a_claim_that_was_lost_is_published_as_suspect(database_url: str):
    """A worker that died in a claimed run leaves an overdue claim; the next one claims as well."""
    delivery = recorded()
    row_claims.claim(delivery, worker="w1", lease=-1, using=DEFAULT)  # SQLite's clock has milliseconds: not just now

    (row,) = due.take_due(100)

    assert (row.publications, row.attempts) == (1, 1)
    with transaction.atomic():
        taken = row_claims.take(delivery, worker="w2", using=DEFAULT)
    assert taken is not None
    assert taken.publications == 1


def test_a_retry_is_not_published_as_suspect(database_url: str):
    """An exception did not end its worker."""
    recorded()
    Delivery.objects.update(state=State.PENDING)
    let_wait(recording.WAIT)

    (row,) = due.take_due(100)

    assert (row.load().state, row.publications) == ("published", 0)

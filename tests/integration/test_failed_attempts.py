"""Attempts that failed are kept, each with its error, whatever becomes of the delivery."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext, override_settings

from signalbus import Retry, RetryLater, Signal
from signalbus.ledger import attempts
from signalbus.models import Delivery, FailedAttempt, State
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.settling.lost_processes import Loss

from .bus import QUEUE, Bus, connect, fails, new_signal, only

OFTEN = Retry(max_attempts=50, base_delay=0, jitter=False)


@pytest.fixture(params=[True, False], ids=["durable", "not durable"])
def any_signal(request: pytest.FixtureRequest) -> Signal:
    """A signal without receivers."""
    return new_signal(durable=request.param)


def fails_first(signal: Signal, errors: list[BaseException], **options: Any) -> None:
    """Connect a receiver that raises these errors, one at each run, and then succeeds."""

    def receiver_that_fails_first(**kwargs: Any) -> None:
        if errors:
            raise errors.pop(0)

    connect(signal, receiver_that_fails_first, "failing", retry=OFTEN, **options)


def kept() -> list[tuple[int, str]]:
    """Return number and error of each attempt that is kept."""
    return list(FailedAttempt.objects.order_by("delivery", "number").values_list("number", "error"))


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_a_dead_delivery_has_the_worker_and_the_start_of_its_last_attempt(bus: Bus, any_signal: Signal, atomic: bool):
    """Also if the attempt rolled back the statement that had noted them; the filter worker: finds it."""
    fails(any_signal, ValueError("bad"), retry=Retry(max_attempts=1), atomic=atomic)
    any_signal.send(None)
    bus.work()

    dead = only()
    assert dead.state == State.DEAD
    assert dead.worker == FailedAttempt.objects.get().worker != ""
    assert dead.started_at is not None
    assert dead.ended_at is not None
    assert dead.started_at <= dead.ended_at


def test_a_failed_attempt_is_kept_when_its_retry_succeeds(bus: Bus, any_signal: Signal):
    """The error is still there, with worker and group, when the delivery is done."""
    fails_first(any_signal, [ValueError("one"), KeyError("two")])
    any_signal.send(None)
    bus.work()
    first = only()
    assert first.error_group
    bus.come_again()
    bus.come_again()

    done = only()
    assert (done.state, done.error, done.error_group) == (State.DONE, "", None)
    assert kept() == [(1, "ValueError: one"), (2, "KeyError: 'two'")]
    one, two = FailedAttempt.objects.order_by("number")
    assert one.error_group == first.error_group != two.error_group
    assert (one.delivery_id, one.worker, one.was_lost) == (done.pk, first.worker or one.worker, False)
    assert one.worker
    assert one.runtime_ms is not None
    assert "receiver_that_fails_first" in one.traceback
    assert "receiver_that_fails_first" in two.traceback


@override_settings(SIGNALBUS={"RELEASE": "2026.11"})
def test_a_failed_attempt_names_the_release(bus: Bus, any_signal: Signal):
    """Whether the new release is the cause can be asked."""
    fails(any_signal, ValueError("bad"))
    any_signal.send(None)
    bus.work()

    assert FailedAttempt.objects.get().release == "2026.11"


def test_the_first_and_the_last_nine_attempts_are_kept(bus: Bus, signal: Signal):
    """A receiver that fails for weeks leaves ten rows, and one of the last nine has a traceback."""
    fails_first(signal, [ValueError(str(number)) for number in range(1, 21)])
    signal.send(None)
    bus.work()
    for _ in range(19):
        bus.come_again()

    assert kept() == [(number, f"ValueError: {number}") for number in (1, *range(12, 21))]
    with_traceback = FailedAttempt.objects.exclude(traceback="").order_by("number")
    assert list(with_traceback.values_list("number", flat=True)) == [1, 17]


def test_a_delivery_that_is_dead_keeps_its_attempts(bus: Bus, signal: Signal):
    """The first error is not replaced by the last one."""
    errors: list[BaseException] = [ValueError("first"), KeyError("last")]

    def receiver_that_raises(**kwargs: Any) -> None:
        raise errors.pop(0)

    connect(signal, receiver_that_raises, retry=Retry(max_attempts=2, base_delay=0))
    signal.send(None)
    bus.work()
    bus.come_again()

    assert kept() == [(1, "ValueError: first"), (2, "KeyError: 'last'")]
    row = only()
    assert (row.state, row.error_group) == (State.DEAD, FailedAttempt.objects.get(number=2).error_group)


def test_failures_in_a_group_commit_are_kept(bus: Bus):
    """Those of a batch have the rows that each would have alone, by one statement on PostgreSQL."""
    signal = new_signal(durable=True)

    def receiver_that_raises(number: int, **kwargs: Any) -> None:
        if number != 1:
            raise ValueError(number)

    connect(signal, receiver_that_raises, retry=OFTEN)
    signal.send_many(None, [{"number": 1}])
    bus.work()  # known as brief from now on
    signal.send_many(None, [{"number": number} for number in range(4)])
    statements: list[str] = []

    def note(execute: Any, sql: str, *arguments: Any) -> Any:
        statements.append(sql)
        return execute(sql, *arguments)

    with connection.execute_wrapper(note):
        bus.work()

    assert sorted(error for _, error in kept()) == ["ValueError: 0", "ValueError: 2", "ValueError: 3"]
    failed = Delivery.objects.filter(state=State.PENDING)
    assert set(failed.values_list("id", "error_group")) == set(
        FailedAttempt.objects.values_list("delivery", "error_group")
    )
    assert len({group for _, group in failed.values_list("id", "error_group")}) == 1
    if connection.vendor == "postgresql":
        assert len([sql for sql in statements if "INSERT INTO signalbus_failed_attempt" in sql]) == 1
    bus.come_again()
    assert len(kept()) == 6
    assert FailedAttempt.objects.filter(number=2).exclude(traceback="").count() == 0


def test_a_success_writes_no_attempt(bus: Bus, ran: list[Any]):
    """A success costs no row and no statement."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: ran.append(1), "fine")
    signal.send(None)
    with CaptureQueriesContext(connection) as queries:
        bus.work()

    assert ran
    assert [query["sql"] for query in queries if "failed_attempt" in query["sql"]] == []


def test_retry_later_adds_no_failed_attempt(bus: Bus, any_signal: Signal):
    """A `RetryLater` is no failure of a group."""
    fails_first(any_signal, [RetryLater(0)])
    any_signal.send(None)
    bus.work()

    assert only().error_group is None
    assert kept() == []


def test_a_lost_process_is_recorded_as_a_failed_attempt(bus: Bus, any_signal: Signal):
    """The row says which process was lost, and how."""
    fails_first(any_signal, [])
    any_signal.send(None)
    ((text,),) = bus.take()
    assert Loss(text, None, "here:7", "signal 9 (SIGKILL)", lambda: None).is_settled()

    (attempt,) = FailedAttempt.objects.all()
    assert (attempt.number, attempt.worker, attempt.was_lost) == (1, "here:7", True)
    assert attempt.error == "its process was lost: signal 9 (SIGKILL)"
    assert attempt.error_group == only().error_group


def test_a_delivery_without_attempts_left_keeps_its_group_and_adds_none(bus: Bus, signal: Signal):
    """No attempt is made, so none is kept."""
    fails(signal, ValueError("bad"), retry=OFTEN)
    signal.send(None)
    bus.work()
    group = only().error_group
    signal.disconnect(dispatch_uid="failing")
    fails(signal, ValueError("bad"), retry=Retry(max_attempts=1))
    bus.come_again()

    assert (only().state, only().error_group) == (State.DEAD, group)
    assert kept() == [(1, "ValueError: bad")]


def test_a_failure_that_was_not_recorded_is_not_kept(bus: Bus):
    """An attempt whose claim was lost belongs to no attempt of the delivery."""
    signal = new_signal(durable=True)
    fails(signal, ValueError("bad"), retry=OFTEN)
    signal.send(None)
    late = attempts.Settlement(state=State.PENDING, error="late", error_group="0a", worker="here:7")

    assert not attempts.settle(only().pk, late, seen=3, attempt=4)
    assert kept() == []


def test_a_row_and_its_attempt_are_one_commit(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """If the attempt cannot be written, the delivery is as it was, and the broker keeps the message."""
    signal = new_signal(durable=True)
    fails(signal, ValueError("bad"), retry=OFTEN)
    signal.send(None)

    def away(*arguments: object, **options: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr("signalbus.ledger.base.settlements.keep_failed", away)
    (texts,) = bus.take()
    with pytest.raises(DatabaseError):
        deliver(texts, queue=QUEUE, redelivered=False)

    assert (only().state, only().attempts) == (State.PUBLISHED, 0)


def test_attempts_are_purged_with_their_delivery(bus: Bus, signal: Signal):
    """The rows of a delivery end together."""
    fails_first(signal, [ValueError("one")])
    signal.send(None)
    bus.work()
    bus.come_again()
    assert kept()
    Delivery.objects.get().message.delete()

    assert kept() == []

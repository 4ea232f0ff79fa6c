"""Operations in bulk: sweepers retry one delivery, then ten, then the rest, and stop when the failure comes back."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from signalbus import Reject, Retry, RetryLater, Signal
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.ledger.operations import bulk_steps
from signalbus.models import Delivery, Operation, State
from signalbus.receiving.sweeping import bulk_progress
from signalbus.receiving.sweeping.bulk_progress import BulkProgress
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.services.actors import Actor, code_actor
from signalbus.services.audit_log import read_log
from signalbus.services.changes.bulk_operations import (
    UnknownOperation,
    change_operation,
    failed_again,
    operation,
    operations,
    start_operation,
)
from signalbus.services.queries.lookup import filter_from
from tests.other_servers import DATABASE

from .bus import Bus, connect, elsewhere, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalbus.ledger.operations import BulkOperation

ACTOR = code_actor("test")
# Statements that the other tests make on each database.
ON_ONE = pytest.mark.parametrize("database", [DATABASE or "sqlite"])


class Receiver:
    """A receiver with a bug: it raises what `error` says, for the numbers in `only` if there are some.

    Args:
        policy: the options of its connection.
    """

    def __init__(self, **policy: Any) -> None:
        self.signal: Signal = new_signal(durable=True)
        self.error: BaseException | None = ValueError("the bug")
        self.only: set[int] | None = None
        self.ran: list[int] = []

        def receiver_with_a_bug(number, **kwargs):
            self.ran.append(number)
            if self.error is not None and (self.only is None or number in self.only):
                raise self.error

        connect(self.signal, receiver_with_a_bug, "receiver", **{"retry": Retry(max_attempts=1), **policy})

    def fail(self, bus: Bus, number: int) -> None:
        """Let deliveries of so many messages fail for good."""
        self.signal.send_many(None, [{"number": each} for each in range(number)])
        bus.work()
        self.ran.clear()


@pytest.fixture
def receiver(bus: Bus) -> Receiver:
    """A receiver of which each delivery is dead at once."""
    return Receiver()


def start(*words: str, kind: Any = "retry", **options: Any) -> int:
    """Start an operation; return its number."""
    return start_operation(kind, filter_from(words), actor=ACTOR, **options).id


def work(bus: Bus, steps: int = 100) -> None:
    """Let the sweeper do steps, publish, and workers run what it published, until nothing changes."""
    before: object = None
    for _ in range(steps):
        sweep()
        bus.work()
        for number in Operation.objects.filter(ended_at=None).values_list("pk", flat=True):
            reset_count(number)
        after = [rows(), list(Operation.objects.values_list("state", "counts", "details__stage"))]
        if before == after:
            return
        before = after


def reset_count(number: int) -> None:
    """Let the next count of an operation be due."""
    row = Operation.objects.get(pk=number)
    row.details["count_at"] = 0.0
    row.save(update_fields=["details"])


def counts(number: int) -> tuple[str, int | None, int, int, int, int]:
    """Return the state of an operation, and found, changed, done, waiting and failed again."""
    each = operation(ACTOR, number)
    return each.state, each.found, each.changed, each.done, each.waiting, each.failed_again


def test_a_fixed_bug_is_retried_with_one_then_ten_then_all(bus: Bus, receiver: Receiver):
    """Each stage begins when the deliveries of the one before have ended well; in the end each ran once more."""
    receiver.fail(bus, 30)
    receiver.error = None
    number = start("receiver:receiver", "state:dead", reason="fixed in 2.4")
    assert counts(number) == ("waiting", None, 0, 0, 0, 0)

    stages = []
    for _ in range(20):
        sweep()
        stages.append((len(receiver.ran), operation(ACTOR, number).changed))
        bus.work()
    work(bus)

    assert stages[0] == (0, 1)
    assert (1, 11) in stages
    assert (11, 30) in stages
    assert sorted(receiver.ran) == list(range(30))
    assert counts(number) == ("done", 30, 30, 30, 0, 0)
    assert set(rows()) == {("receiver", "done", 2)}


@ON_ONE
def test_the_next_stage_waits_for_the_trial(bus: Bus, receiver: Receiver):
    """As long as the first delivery has not run, no sweep makes another one due."""
    receiver.fail(bus, 5)
    receiver.error = None
    number = start("state:dead")
    for _ in range(5):
        sweep()
    each = operation(ACTOR, number)
    assert (each.changed, each.stage, len(each.trial), each.waiting, each.left) == (1, "ten", 1, 1, 4)
    assert Delivery.objects.filter(state=State.DEAD).count() == 4


def test_a_bug_that_is_not_fixed_stops_it_after_the_first(bus: Bus, receiver: Receiver, caplog: Any):
    """The operation says for which failure, and names the delivery; the others are not touched."""
    receiver.fail(bus, 30)
    number = start("receiver:receiver")
    with caplog.at_level(logging.WARNING, "signalbus"):
        work(bus)

    each = operation(ACTOR, number)
    assert receiver.ran == [0]
    assert counts(number) == ("stopped", 30, 1, 0, 0, 1)
    assert (each.stopped_because, each.is_over) == ("ValueError: the bug", True)
    assert each.stopped_group == Delivery.objects.values_list("error_group", flat=True)[0]
    assert [str(row.pk) for row in failed_again(ACTOR, number)] == list(each.stopped_by)
    assert f"operation {number} (retry receiver:receiver) stopped: ValueError: the bug" in caplog.text
    assert Delivery.objects.filter(attempts=1).count() == 29


def test_a_failed_attempt_stops_it_although_the_delivery_is_tried_again(bus: Bus):
    """Its own retries may take hours; that the cause is still there is known at once."""
    receiver = Receiver(retry=Retry(max_attempts=5, base_delay=600))
    receiver.fail(bus, 20)
    number = start("receiver:receiver")
    work(bus)
    assert counts(number) == ("stopped", 20, 1, 0, 0, 1)
    assert Delivery.objects.get(attempts=2).state == State.PENDING


def test_a_failure_of_the_rest_stops_it(bus: Bus, receiver: Receiver):
    """Also after the trial has ended well, as long as something is left."""
    receiver.fail(bus, 40)
    receiver.only = {6}
    number = start("receiver:receiver", rate=1)
    work(bus, 4)
    Operation.objects.filter(ended_at=None).update(details=with_credit(-8.0))
    work(bus)

    assert counts(number)[0] == "stopped"
    assert operation(ACTOR, number).left > 0
    assert [row.attempts for row in failed_again(ACTOR, number)] == [2]


def with_credit(seconds: float) -> dict[str, Any]:
    """Return the details of the only operation, as if its rate had not been used for a while."""
    details: dict[str, Any] = Operation.objects.get(details__has_key="stage").details
    return {**details, "credit_at": (details.get("credit_at") or 0.0) + seconds}


def test_another_failure_does_not_stop_it(bus: Bus):
    """A delivery that fails for another cause is tried again by its own retries; the trial waits for it."""
    receiver = Receiver(retry=Retry(max_attempts=2, base_delay=600))
    receiver.fail(bus, 3)
    bus.come_again()
    receiver.error, receiver.only = ConnectionError("a network"), {0}
    number = start("state:dead")
    work(bus)
    assert counts(number) == ("running", 3, 1, 0, 0, 1)

    receiver.error = None
    bus.come_again()
    work(bus)
    assert counts(number) == ("done", 3, 3, 3, 0, 0)


@ON_ONE
def test_a_trial_that_dies_of_another_failure_stops_it(bus: Bus, receiver: Receiver):
    """The trial has not ended well."""
    receiver.fail(bus, 3)
    receiver.error = Reject("never")
    number = start("state:dead")
    work(bus)
    assert counts(number)[:3] == ("stopped", 3, 1)
    assert "never" in operation(ACTOR, number).stopped_because


def test_a_receiver_that_asks_for_later_has_not_failed(bus: Bus):
    """The trial waits for it."""
    receiver = Receiver(retry=Retry(max_attempts=2, base_delay=600))
    receiver.fail(bus, 3)
    bus.come_again()
    receiver.error = RetryLater(600)
    number = start("state:dead")
    work(bus)
    assert counts(number)[:3] == ("running", 3, 1)
    assert failed_again(ACTOR, number) == []


@ON_ONE
def test_what_is_dead_since_without_another_run_is_retried(bus: Bus):
    """A deploy that allows fewer attempts ends deliveries between the request and its work: they failed before it."""
    signal, is_repaired = new_signal(durable=True), False

    def receiver_with_a_bug(**kwargs):
        if not is_repaired:
            raise ValueError("the bug")

    connect(signal, receiver_with_a_bug, "receiver", retry=Retry(max_attempts=5))
    signal.send_many(None, [{"number": each} for each in range(3)])
    bus.work()
    failed_at = list(Delivery.objects.order_by("id").values_list("failed_at", flat=True))
    number = start("receiver:receiver")
    Operation.objects.update(state="paused")  # no sweeper has come to it yet
    signal.disconnect(receiver_with_a_bug, dispatch_uid="receiver")
    connect(signal, receiver_with_a_bug, "receiver", retry=Retry(max_attempts=1))
    bus.come_again()
    Operation.objects.update(state="waiting")
    assert set(rows()) == {("receiver", "dead", 1)}
    assert list(Delivery.objects.order_by("id").values_list("failed_at", flat=True)) == failed_at

    is_repaired = True
    work(bus)

    assert counts(number)[:3] == ("done", 3, 3)
    assert set(rows()) == {("receiver", "done", 2)}


@ON_ONE
@pytest.mark.parametrize(("attempts", "words"), [(1, ["state:dead"]), (5, [])])
def test_what_fails_later_is_left_alone(bus: Bus, attempts: int, words: list[str]):
    """The filter is frozen at the time when it was asked for, for what is sent and for what fails."""
    receiver = Receiver(retry=Retry(max_attempts=attempts, base_delay=600))
    receiver.fail(bus, 2)
    receiver.signal.send(None, number=7)  # sent before, and fails after
    number = start(*words)
    bus.work()
    receiver.signal.send(None, number=8)
    bus.work()
    receiver.error, receiver.ran = None, []
    work(bus)
    assert counts(number) == ("done", 2, 2, 2, 0, 0)
    assert Delivery.objects.exclude(state=State.DONE).filter(attempts=1).count() == 2


def test_a_limit_takes_the_oldest(bus: Bus, receiver: Receiver):
    """No more are found, and no more are made due."""
    receiver.fail(bus, 20)
    receiver.error = None
    number = start("state:dead", limit=13)
    work(bus)
    assert counts(number) == ("done", 13, 13, 13, 0, 0)
    assert sorted(receiver.ran) == list(range(13))


def test_a_rate_limits_how_many_become_due(bus: Bus, receiver: Receiver):
    """All sweepers together keep it; a pause of the sweepers is made up for ten seconds at most."""
    receiver.fail(bus, 60)
    receiver.error = None
    number = start("state:dead", rate=2)
    for _ in range(6):
        sweep()
        bus.work()
    before = operation(ACTOR, number).changed
    assert before <= 6  # one, two, and what has become due since
    assert operation(ACTOR, number).stage == "rest"

    Operation.objects.filter(ended_at=None).update(details=with_credit(-3600))
    sweep()
    assert operation(ACTOR, number).changed - before in {20, 21}
    left = operation(ACTOR, number)
    assert left.seconds_left == left.left / 2


def test_a_discard_has_no_trial(bus: Bus, receiver: Receiver):
    """There is nothing to try; what runs is left alone."""
    receiver.fail(bus, 20)
    number = start("state:dead", kind="discard", reason="test data")
    work(bus)
    assert counts(number) == ("done", 20, 20, 20, 0, 0)
    assert set(rows()) == {("receiver", "discarded", 1)}


def test_a_step_that_is_broken_off_has_done_nothing(bus: Bus, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    """A killed sweeper's transaction is rolled back: the next step does the same, once, at each stage."""
    receiver.fail(bus, 25)
    receiver.error = None
    number = start("state:dead", rate=1000)
    monkeypatch.setattr(bulk_steps, "TRIAL_SECONDS", 0.01)

    class Killed(KeyboardInterrupt):
        """Ends the process."""

    for _ in range(100):
        before = tables()
        with pytest.raises(Killed), transaction.atomic():
            ledger.step(number)
            raise Killed
        assert tables() == before
        ledger.step(number)
        run_due(bus)
        if operation(ACTOR, number).is_over:
            break
        reset_count(number)

    assert counts(number) == ("done", 25, 25, 25, 0, 0)
    assert set(rows()) == {("receiver", "done", 2)}


def tables() -> list[Any]:
    """Return all that a step changes."""
    return [list(Operation.objects.values()), list(Delivery.objects.order_by("id").values())]


def run_due(bus: Bus) -> None:
    """Run what is due, although its message may have been taken off the queue."""
    Delivery.objects.filter(state=State.PUBLISHED).update(state=State.PENDING)
    bus.come_again()


def test_two_sweepers_do_no_step_twice(bus: Bus, receiver: Receiver, database: str):
    """While one does a step, the other finds nothing to do."""
    receiver.fail(bus, 25)
    receiver.error = None
    number = start("state:dead")
    ledger.step(number)
    if database == "sqlite":  # one writer at a time: the other's step begins when this one has ended
        assert elsewhere(lambda: ledger.step(number)) == [bulk_steps.TRIAL_SECONDS]
        assert ledger.step(number) == bulk_steps.TRIAL_SECONDS
    else:
        with transaction.atomic():
            assert ledger.step(number) == bulk_steps.TRIAL_SECONDS
            assert elsewhere(lambda: ledger.step(number)) == [None]
    assert operation(ACTOR, number).changed == 1


def test_sweepers_that_race_change_each_delivery_once(
    bus: Bus, receiver: Receiver, listening: Any, monkeypatch: pytest.MonkeyPatch
):
    """Each step takes the next deliveries, whichever sweeper does it."""
    receiver.fail(bus, 60)
    monkeypatch.setattr(bulk_steps, "BATCH", 7)
    number, told, begin = start("state:dead", kind="discard"), [], threading.Barrier(3)

    @listening("discarded")
    def note(event):
        told.append(event.delivery.id)

    def sweep_until_it_has_ended() -> None:
        begin.wait(30)
        try:
            while not operation(ACTOR, number).is_over:
                ledger.step(number)
        finally:
            connections.close_all()

    sweepers = [threading.Thread(target=sweep_until_it_has_ended) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    begin.wait(30)
    for sweeper in sweepers:
        sweeper.join(60)
    assert counts(number) == ("done", 60, 60, 60, 0, 0)
    assert len(told) == len(set(told)) == 60


def test_a_paused_operation_goes_on_where_it_was(bus: Bus, receiver: Receiver):
    """Nothing is made due meanwhile; after the resumption the rate is not made up for."""
    receiver.fail(bus, 30)
    receiver.error = None
    number = start("state:dead", rate=2)
    work(bus, 3)
    assert change_operation("pause", number, actor=ACTOR, reason="lunch").state == "paused"
    Operation.objects.filter(ended_at=None).update(details=with_credit(-60))
    before = operation(ACTOR, number).changed
    work(bus)
    assert operation(ACTOR, number).changed == before
    with pytest.raises(ConfigurationError, match="is paused: only one that waits or runs"):
        change_operation("pause", number, actor=ACTOR)

    assert change_operation("resume", number, actor=ACTOR).state == "running"
    sweep()
    assert operation(ACTOR, number).changed - before <= 3
    assert [(entry.kind, entry.reason) for entry in read_log(ACTOR)] == [
        ("resume", ""),
        ("pause", "lunch"),
        ("retry", ""),
    ]


def test_a_cancelled_operation_leaves_the_rest(bus: Bus, receiver: Receiver):
    """What it has made due runs all the same; it cannot be resumed."""
    receiver.fail(bus, 30)
    receiver.error = None
    number = start("state:dead")
    sweep()
    assert change_operation("cancel", number, actor=ACTOR, reason="wrong filter").state == "cancelled"
    work(bus)
    assert receiver.ran == [0]
    for change in ("resume", "cancel", "pause"):
        with pytest.raises(ConfigurationError, match="is cancelled"):
            change_operation(change, number, actor=ACTOR)
    with pytest.raises(UnknownOperation, match="no operation 4711"):
        change_operation("cancel", 4711, actor=ACTOR)


@ON_ONE
def test_nothing_found_is_done_at_once(bus: Bus):
    """Nothing waits for ever."""
    number = start("state:dead")
    work(bus)
    assert counts(number) == ("done", 0, 0, 0, 0, 0)


def test_a_locked_delivery_is_left_alone(bus: Bus, receiver: Receiver, database: str):
    """A worker runs it at this moment; the operation counts it and goes on."""
    if database == "sqlite":
        pytest.skip("one writer at a time")
    receiver.fail(bus, 3)
    receiver.error = None
    number = start("state:dead")
    first = Delivery.objects.order_by("id")[0].pk
    with transaction.atomic():
        Delivery.objects.select_for_update().get(pk=first)
        elsewhere(lambda: [ledger.step(number), ledger.step(number), ledger.step(number)])
    work(bus)
    assert counts(number) == ("done", 3, 2, 2, 0, 0)
    assert operation(ACTOR, number).left_alone == 1


def test_deliveries_of_another_operation_do_not_keep_it_from_ending(bus: Bus, receiver: Receiver):
    """A delivery that was retried by hand before, and waits, belongs to the other one."""
    other = Receiver()
    other.error = KeyError("another bug")
    other.fail(bus, 1)
    receiver.fail(bus, 1)
    ledger.retry(list(Delivery.objects.filter(message__signal=other.signal.name).values_list("pk", flat=True)))
    Delivery.objects.filter(message__signal=other.signal.name).update(due_at=F("due_at") + timedelta(hours=1))
    receiver.error = None
    number = start("state:dead")
    work(bus)
    assert counts(number) == ("done", 1, 1, 1, 0, 0)


@ON_ONE
def test_an_idle_sweeper_looks_for_operations_seldom(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """One statement each five seconds, and none between."""
    clock = count(100.0)
    monkeypatch.setattr(bulk_progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = BulkProgress()
    with CaptureQueriesContext(connection) as queries:
        for _ in range(5):
            assert progress.step() is None
    assert len(queries) == 1


@ON_ONE
def test_a_step_that_fails_does_not_stop_the_sweeper(
    bus: Bus, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The failure is logged, and the step is tried again; another operation goes on."""
    receiver.fail(bus, 2)
    broken, sound = start("state:dead"), start("state:dead")
    step = ledger.step

    def fail(number: int) -> float | None:
        if number == broken:
            raise DatabaseError("canceling statement due to statement timeout")
        return step(number)

    monkeypatch.setattr(ledger, "step", fail)
    progress = BulkProgress()
    assert progress.step() is not None
    assert "statement timeout" in caplog.text
    assert operation(ACTOR, sound).found == 2
    assert operation(ACTOR, broken).state == "waiting"


@ON_ONE
def test_a_filter_of_a_newer_version_stops_the_operation(bus: Bus, receiver: Receiver):
    """It says which key is not known, and the sweeper goes on."""
    number = start("state:dead")
    Operation.objects.update(details={**Operation.objects.get().details, "words": ["colour:blue"]})
    work(bus)
    each = operation(ACTOR, number)
    assert each.state == "stopped"
    assert "'colour' is no key of a filter" in each.stopped_because
    assert failed_again(ACTOR, number) == []


WRONG: list[dict[str, Any]] = [{"rate": 0}, {"rate": float("nan")}, {"limit": 0}, {"kind": "purge"}]


@ON_ONE
@pytest.mark.parametrize("options", WRONG)
def test_wrong_input_is_an_error(database_url: str, options: dict[str, Any]):
    """Nothing is recorded."""
    with pytest.raises(ConfigurationError):
        start("state:dead", **options)
    assert not Operation.objects.exists()


def everything(actor: Actor, number: int) -> Iterator[Any]:
    """Yield each service, to be called."""
    yield lambda: operations(actor)
    yield lambda: operation(actor, number)
    yield lambda: failed_again(actor, number)
    yield lambda: start_operation("retry", filter_from([]), actor=actor)
    yield lambda: change_operation("cancel", number, actor=actor)


@ON_ONE
def test_each_service_checks_its_permission(database_url: str):
    """Viewers look, operators change, and others do neither."""
    number = start("state:dead")
    for permissions, allowed in ((), 0), (("signalbus.view_delivery",), 3):
        actor = Actor("ana", "web", allows=permissions.__contains__)
        refused = 0
        for service in everything(actor, number):
            try:
                service()
            except PermissionDenied:
                refused += 1
        assert refused == 5 - allowed
    assert operation(ACTOR, number).state == "waiting"


@ON_ONE
def test_those_that_have_not_ended_are_listed_first(database_url: str):
    """Then the youngest."""
    numbers = [start("state:dead") for _ in range(3)]
    change_operation("cancel", numbers[2], actor=ACTOR)
    listed: list[BulkOperation] = operations(ACTOR)
    assert [each.id for each in listed] == [numbers[1], numbers[0], numbers[2]]

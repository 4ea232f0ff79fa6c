"""Gates: what holds a delivery, until when, and that nothing of it is lost, counted or run meanwhile."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connection
from django.db.models import F

from signalbus import Signal, cancel
from signalbus.ledger import attempts, operations, sweeps
from signalbus.ledger.base.clock import Now
from signalbus.models import Delivery, State, StoredMessage
from signalbus.receiving.process.receiver_runtimes import runtimes
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.running import gates, group_commit
from signalbus.receiving.running.gates import Held
from signalbus.receiving.sweeping.due_publication import sweep

from .bus import QUEUE, Bus, connect, elsewhere, fails, let_wait, new_signal, only, prove_lost, recover, rows

if TYPE_CHECKING:
    from collections.abc import Callable

SUNDAY = datetime(2026, 11, 29, 18, tzinfo=UTC)
MONDAY = datetime(2026, 11, 30, tzinfo=UTC)
clock = [SUNDAY]
kept: list[Signal] = []  # until the end of a test: a worker looks them up by name


# The whole of a feature that uses the seam.
def not_on_sundays(message: Any, receiver: Any) -> Held | None:
    """Hold what comes on a Sunday until Monday."""
    now = clock[0]
    midnight = now.replace(hour=0, minute=0, second=0) + timedelta(days=1)
    return Held("not on Sundays", (midnight - now).total_seconds()) if now.weekday() == 6 else None


@pytest.fixture
def gated(monkeypatch) -> list[Any]:
    """The gates, of which there is one that holds everything on a Sunday; it is one."""
    monkeypatch.setitem(globals(), "clock", [SUNDAY])
    monkeypatch.setitem(globals(), "kept", [])
    registered: list[Any] = [not_on_sundays]
    monkeypatch.setattr(gates, "GATES", registered)
    monkeypatch.setattr(runtimes, "expected", lambda receiver: 0.0)
    monkeypatch.setattr(runtimes, "_alone_until", {})
    monkeypatch.setattr(group_commit, "BRIEF", 60.0)
    monkeypatch.setattr(group_commit, "LIMITS", dict.fromkeys(group_commit.LIMITS, 60.0))
    return registered


def receiver_of(ran: list[Any], **options: Any) -> Signal:
    """Return a signal, durable if nothing else is said, whose receiver notes that it ran."""
    receiver_options = {"atomic": options.pop("atomic")} if "atomic" in options else {}
    signal = new_signal(**{"durable": True, **options})
    connect(signal, lambda **kwargs: ran.append(kwargs.get("number")), "receiver", **receiver_options)
    kept.append(signal)
    return signal


def let_monday_come() -> None:
    """Let the rest of Sunday pass, for the gate and for the ledger."""
    clock[0] = MONDAY
    Delivery.objects.update(due_at=F("due_at") - timedelta(hours=6))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1),
        ({}, 3),
        ({"durable": False}, 1),
        ({"durable": False}, 3),
        ({"ordered_by": "key"}, 2),
        ({"open": True}, 1),
        ({"open": True, "durable": False}, 1),
        ({"atomic": False}, 2),
    ],
    ids=[
        "alone",
        "in a group commit",
        "no row",
        "several without rows",
        "ordered",
        "open",
        "open, no row",
        "atomic=False",
    ],
)
def test_a_held_delivery_waits_for_its_time_and_runs_once(
    bus: Bus, gated: list[Any], ran: list[Any], options: dict[str, Any], count: int
):
    """No attempt is counted, no sweep and no late copy runs it before, and the sweeper publishes it when it is due."""
    signal = receiver_of(ran, **options)
    signal.send_many(None, [{"key": "a", "number": number} for number in range(count)])
    taken = bus.take()
    for texts in taken:
        deliver(texts, queue=QUEUE)
    if options.get("open") and options.get("durable", True):
        sweep()  # a row for each of its receivers
        bus.work()

    held = Delivery.objects.filter(state=State.HELD)
    assert held.count() == (1 if "ordered_by" in options else count)  # those behind the head of a key wait for it
    assert set(held.values_list("attempts", "held_reason", "error")) == {(0, "not on Sundays", "")}
    remaining = [row.due_at - StoredMessage.objects.earliest("created_at").created_at for row in held]
    assert all(timedelta(hours=5, minutes=59) < each < timedelta(hours=6, minutes=5) for each in remaining)
    for texts in taken:
        deliver(texts, queue=QUEUE)  # a late copy
        deliver(texts, queue=QUEUE, redelivered=True)
    if "ordered_by" not in options:
        prove_lost(bus)
    Delivery.objects.filter(state=State.HELD).update(due_at=Now() + timedelta(hours=6))
    assert (sweep(), bus.work(), ran) == (0, 0, [])

    let_monday_come()
    sweep()
    bus.work()

    while "ordered_by" in options and len(ran) < count:
        recover(bus)
    assert sorted(ran) == list(range(count))
    assert {(state, attempts) for receiver, state, attempts in rows() if receiver} == {("done", 1)}


def test_a_retry_is_held_and_keeps_the_error_of_its_attempt(bus: Bus, gated: list[Any]):
    """The reason does not replace the error, and the attempts count on afterwards."""
    clock[0] = MONDAY
    signal = new_signal(durable=True)
    fails(signal, ValueError("first"))
    signal.send(None)
    bus.work()
    clock[0] = SUNDAY
    bus.come_again()

    assert (only().state, only().attempts, only().error) == ("held", 1, "ValueError: first")

    clock[0] = MONDAY
    bus.come_again()
    assert (only().state, only().attempts, only().held_reason) == ("pending", 2, "not on Sundays")


def test_a_registered_gate_is_asked_once(bus: Bus, gated: list[Any], ran: list[Any]):
    """Registering it again, as by a module that is imported under two names, changes nothing."""
    asked: list[Any] = []
    gated.clear()

    @gates.register_gate
    def observe(message: Any, receiver: Any) -> None:
        asked.append(receiver.id)

    assert gates.register_gate(observe) is observe
    assert gated == [observe]
    receiver_of(ran, durable=False).send(None, number=1)
    bus.work()

    assert (asked, ran) == (["receiver"], [1])


def test_a_gate_asks_for_a_claim(bus: Bus, gated: list[Any], ran: list[Any], listening):
    """A delivery that could share a commit runs alone, and is counted before."""
    claimed: list[str] = []
    listening("claimed")(lambda event: claimed.append(event.delivery.receiver))
    gated[:] = [lambda message, receiver: "claim"]
    receiver_of(ran).send_many(None, [{"number": number} for number in range(2)])

    bus.work()

    assert (sorted(ran), claimed) == ([0, 1], ["receiver"] * 2)


def test_the_first_gate_that_holds_decides(bus: Bus, gated: list[Any], ran: list[Any]):
    """A claim that another gate asks for does not let the delivery run."""
    gated[:] = [lambda *_: "claim", lambda *_: None, lambda *_: Held("second", 5), lambda *_: Held("third")]
    receiver_of(ran).send(None)

    bus.work()

    assert (only().state, only().held_reason, ran) == ("held", "second", [])


def test_a_delivery_without_an_end_waits_until_it_is_released(bus: Bus, gated: list[Any], ran: list[Any]):
    """Nothing but its release makes it due, and only that of its own receiver."""
    gated[:] = [lambda *_: Held("paused")]
    receiver_of(ran).send(None, number=1)
    bus.work()
    gated.clear()
    let_wait(86400.0 * 365)
    assert (sweep(), operations.release_held(["other"]), only().state) == (0, 0, "held")

    assert operations.release_held(["receiver"]) == 1
    assert (sweep(), bus.work(), ran) == (1, 1, [1])


def test_a_gate_that_fails_holds_the_delivery(bus: Bus, gated: list[Any], ran: list[Any], caplog):
    """The error of the gate is logged, and the gates are asked again after a minute."""

    def gate_that_fails(message, receiver):
        raise ValueError("no answer")

    gated[:] = [gate_that_fails]
    receiver_of(ran).send(None, number=1)
    bus.work()

    assert (only().state, ran) == ("held", [])
    assert "ValueError: no answer" in (only().held_reason or "")
    assert "gate_that_fails" in caplog.text
    gated.clear()
    let_wait(gates.FAILED_SECONDS)
    assert (sweep(), bus.work(), ran) == (1, 1, [1])


def test_a_gate_whose_database_is_away_leaves_the_message_with_the_broker(bus: Bus, gated: list[Any], ran: list[Any]):
    """As where the ledger is away: nothing runs, and nothing is written down."""

    def gate_that_cannot_ask(message, receiver):
        raise OperationalError("away")

    gated[:] = [gate_that_cannot_ask]
    receiver_of(ran).send(None)

    with pytest.raises(DatabaseError):
        bus.work()
    assert (only().state, ran) == ("published", [])


def test_a_verdict_that_no_longer_applies_in_the_transaction_holds_nothing(bus: Bus, gated: list[Any], ran: list[Any]):
    """A reason that is over when the row is written, as one from a cache, lets the delivery be due at once."""
    asked: list[bool] = []

    def still_applies() -> bool:
        asked.append(connection.in_atomic_block)
        return False

    gated[:] = [lambda *_: Held("paused a moment ago", still_applies=still_applies)]
    receiver_of(ran).send(None, number=1)
    bus.work()
    gated.clear()

    assert (sweep(), bus.work(), ran, asked) == (1, 1, [1], [True])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("options", [{}, {"durable": False}, {"atomic": False}], ids=["row", "no row", "atomic=False"])
def test_a_worker_killed_while_it_holds_a_delivery_loses_nothing(  # noqa: PLR0917 - fixtures
    bus: Bus, gated: list[Any], ran: list[Any], monkeypatch, options: dict[str, Any], when: str
):
    """The message is redelivered, before and after the commit that holds the delivery."""
    signal = receiver_of(ran, **options)
    signal.send(None, number=1)
    (texts,) = bus.take()
    hold = attempts.hold_delivery

    def die(*arguments: Any, **named: Any) -> bool:
        if when == "after":
            hold(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attempts, "hold_delivery", die)
        with pytest.raises(KeyboardInterrupt):
            deliver(texts, queue=QUEUE)
    deliver(texts, queue=QUEUE, redelivered=True)

    assert rows() == [("receiver", "held", 0)]
    let_monday_come()
    assert (sweep(), bus.work(), ran) == (1, 1, [1])


def test_a_delivery_that_runs_elsewhere_is_not_held(bus: Bus, gated: list[Any], ran: list[Any]):
    """A claim, an end and a later attempt stand: a late copy of the message changes none of them."""
    receiver_of(ran).send(None)
    (texts,) = bus.take()
    for fields in (
        {"state": State.RUNNING}, {"state": State.DONE}, {"state": State.DEAD},
        {"state": State.PENDING, "due_at": Now() + timedelta(hours=1)},
    ):  # fmt: skip
        Delivery.objects.update(**fields)
        deliver(texts, queue=QUEUE)
        assert only().state == fields["state"]


def test_a_lost_claim_is_a_failed_attempt_although_a_gate_holds(bus: Bus, gated: list[Any], ran: list[Any]):
    """A gate does not hide that a worker was lost: its attempt is written down when the message is redelivered."""
    receiver_of(ran).send(None)
    (texts,) = bus.take()
    attempts.claim(only().pk, worker="gone", lease=-1, using="default")
    deliver(texts, queue=QUEUE, redelivered=True)

    assert (only().state, only().attempts, only().error) == ("pending", 1, "its worker was lost in attempt 1")


def test_held_retries_are_admitted_by_share(bus: Bus, gated: list[Any], ran: list[Any]):
    """Retries that were held together do not take all places of a worker when their time comes."""
    receiver_of(ran).send_many(None, [{"number": number} for number in range(8)])
    bus.work()
    Delivery.objects.update(attempts=1, due_at=Now())

    published, waiting = sweeps.take_admitted(100, sweeps.Share("worker", 2))

    assert (len(published), waiting) == (2, True)


def test_a_row_that_another_worker_has_locked_is_not_held(bus: Bus, gated: list[Any], ran: list[Any]):
    """The receiver runs there in a transaction: the copy is dropped, and the run commits."""
    if connection.vendor == "sqlite":
        pytest.skip("one writer at a time")
    clock[0] = MONDAY
    found: list[str] = []

    def deliver_a_copy(**kwargs: Any) -> None:
        clock[0] = SUNDAY
        elsewhere(lambda: deliver(texts, queue=QUEUE))
        found.extend(elsewhere(lambda: only().state))

    signal = new_signal(durable=True)
    connect(signal, deliver_a_copy, "receiver")
    signal.send(None)
    (texts,) = bus.take()
    deliver(texts, queue=QUEUE)

    assert (found, only().state) == (["published"], "done")


def test_a_held_delivery_can_be_cancelled(bus: Bus, gated: list[Any], ran: list[Any]):
    """A held delivery has not run, so `cancel()` returns True."""
    sent = receiver_of(ran).send(None)
    bus.work()

    assert cancel(sent.id)
    assert only().state == "discarded"


def test_a_worker_that_lacks_the_receiver_does_not_park_a_held_delivery(bus: Bus, gated: list[Any], ran: list[Any]):
    """A late copy there neither makes it due earlier, nor starts its day of being unknown."""
    signal = receiver_of(ran)
    signal.send(None)
    (texts,) = bus.take()
    deliver(texts, queue=QUEUE)
    signal.disconnect(dispatch_uid="receiver")
    deliver(texts, queue=QUEUE)

    assert (only().state, only().parked_at) == ("held", None)


def test_commands_show_held_deliveries(bus: Bus, gated: list[Any], ran: list[Any], monkeypatch):
    """`failed` lists it when asked for, with its reason and its time; `status` counts it; an audit finds it waiting."""
    gated[:] = [lambda *_: Held("a reason\nof two lines", 3600)]
    receiver_of(ran).send(None)
    bus.work()

    def call(*arguments: str) -> str:
        out = io.StringIO()
        call_command("signalbus", *arguments, stdout=out, stderr=out)
        return out.getvalue()

    listed = call("failed", "--state", "held")
    assert "held: a reason" in listed
    assert "due at 2" in listed
    assert "1 held (may not run yet" in listed
    assert json.loads(call("failed", "--state", "held", "--json"))[0]["held_reason"].startswith("a reason")
    assert "1 held" in call("status")
    assert "held" not in call("failed")
    account = operations.audit(StoredMessage.objects.get().created_at, operations.Evidence()).accounts
    assert [each.counts["waiting"] for each in account.values()] == [1]


# The conditions by which 0.4.1 selects rows to run, count, publish, end as dead and requeue. It ignores other states.
SELECTED_BY_0_4 = {
    "take": """CASE WHEN state IN ('published', 'parked') THEN TRUE
        WHEN state IN ('pending', 'running') THEN due_at <= CURRENT_TIMESTAMP ELSE FALSE END""",
    "claim": """CASE WHEN state IN ('published', 'parked', 'running') THEN TRUE
        WHEN state IN ('pending') THEN due_at <= CURRENT_TIMESTAMP ELSE FALSE END""",
    "sweep": "state IN ('pending', 'parked', 'running') AND due_at <= CURRENT_TIMESTAMP",
    "mark, end as dead and requeue": "state = 'published'",
    "settle a claim": "state = 'running'",
    "settle": "state IN ('pending', 'parked', 'published', 'running')",
    "park": "state IN ('pending', 'parked', 'published')",
    "purge": "state IN ('done', 'skipped', 'discarded')",
}


@pytest.mark.parametrize("condition", SELECTED_BY_0_4.values(), ids=SELECTED_BY_0_4)
def test_a_worker_of_0_4_leaves_a_held_row_alone(bus: Bus, gated: list[Any], ran: list[Any], condition: str):
    """No condition of its statements is true for one, due or not."""
    receiver_of(ran).send(None)
    bus.work()
    Delivery.objects.update(due_at=Now() - timedelta(days=1))

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM signalbus_delivery WHERE {condition}")
        assert cursor.fetchone() == (0,)
    assert Delivery.objects.filter(state="held", ended_at=None).count() == 1


def test_a_worker_of_0_4_inserts_rows_without_the_new_column(bus: Bus):
    """The database gives it no reason."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)  # names the columns of 0.4 alone

    assert only().held_reason is None


def test_a_held_delivery_has_an_event(bus: Bus, gated: list[Any], ran: list[Any], listening: Callable[..., Any]):
    """The event has the reason, and the time for which the delivery is held."""
    heard: list[Any] = []
    listening("held")(heard.append)
    receiver_of(ran).send(None)
    gated[:] = [lambda *_: Held("paused")]
    bus.work()

    (event,) = heard
    assert (str(event.error), event.delay, event.delivery.attempt, event.seconds) == ("paused", math.inf, 0, None)

"""Pauses: what is for a paused receiver, signal or queue waits in the ledger, and runs once it is resumed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from signalbus import Retry, Signal
from signalbus.ledger import attempts
from signalbus.ledger import operations as ledger
from signalbus.ledger.base.clock import Now
from signalbus.models import Delivery, Pause, State, StoredMessage
from signalbus.receiving.pausing import pause_gate, pause_watch
from signalbus.receiving.pausing.pause_gate import obey_pauses
from signalbus.receiving.process.receiver_runtimes import runtimes
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.running import gates, group_commit
from signalbus.receiving.settling.lost_processes import Loss
from signalbus.receiving.sweeping.due_publication import sweep

from .bus import QUEUE, Bus, connect, elsewhere, fails, let_wait, new_signal, only, prove_lost, recover, rows


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> pause_watch.PauseWatch:
    """What this process knows of pauses, as in a worker; it is asked for by each test here."""
    monkeypatch.setattr(gates, "GATES", [])
    monkeypatch.setattr(runtimes, "expected", lambda receiver: 0.0)
    monkeypatch.setattr(runtimes, "_alone_until", {})
    monkeypatch.setattr(group_commit, "BRIEF", 60.0)
    monkeypatch.setattr(group_commit, "LIMITS", dict.fromkeys(group_commit.LIMITS, 60.0))
    watch = pause_watch.PauseWatch(attempts.pause_rows)
    monkeypatch.setattr(pause_gate, "watch", watch)
    obey_pauses()
    return watch


def receiver_of(ran: list[Any], **options: Any) -> Signal:
    """Return a signal, durable if nothing else is said, whose receiver notes that it ran."""
    receiver_options = {name: options.pop(name) for name in ("atomic", "queue", "was") if name in options}
    signal = new_signal(**{"durable": True, **options})
    connect(signal, lambda **kwargs: ran.append(kwargs.get("number")), "receiver", **receiver_options)
    return signal


SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "alone": ({}, 1),
    "in a group commit": ({}, 3),
    "no row": ({"durable": False}, 1),
    "several without rows": ({"durable": False}, 3),
    "ordered": ({"ordered_by": "key"}, 2),
    "open": ({"open": True}, 1),
    "open, no row": ({"open": True, "durable": False}, 1),
    "atomic=False": ({"atomic": False}, 2),
}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *(("receiver", shape) for shape in SHAPES),
        ("signal", "in a group commit"),
        ("signal", "open"),
        ("queue", "no row"),
    ],
)
def test_a_paused_delivery_waits_and_runs_once(bus: Bus, watch: Any, ran: list[Any], kind: str, shape: str):
    """No attempt is counted, no marker, late copy or sweep runs it, and it runs once after `resume`."""
    options, count = SHAPES[shape]
    signal = receiver_of(ran, **options)
    name = {"receiver": "receiver", "signal": signal.name, "queue": QUEUE}[kind]
    assert ledger.pause(kind, name, reason="the CRM is down", by="ana")
    watch.refresh()
    signal.send_many(None, [{"key": "a", "number": number} for number in range(count)])
    taken = bus.take()
    for texts in taken:
        deliver(texts, queue=QUEUE)
    if options.get("open") and options.get("durable", True):
        sweep()  # a row for each of its receivers
        bus.work()

    held = Delivery.objects.filter(state=State.HELD)
    assert held.count() == (1 if "ordered_by" in options else count)  # those behind the head of a key wait for it
    reason = f"{kind}:{name} is paused by ana: the CRM is down"
    assert set(held.values_list("attempts", "held_reason", "error")) == {(0, reason, "")}
    for texts in taken:
        deliver(texts, queue=QUEUE)  # a late copy
        deliver(texts, queue=QUEUE, redelivered=True)
    if "ordered_by" not in options:
        prove_lost(bus)
    else:
        let_wait()
    sweep()
    bus.work()
    assert ran == []

    held_then = ledger.resume(kind, name)
    watch.refresh()
    assert held_then == held.count()
    sweep()
    bus.work()
    while "ordered_by" in options and len(ran) < count:
        recover(bus)

    assert (ran if "ordered_by" in options else sorted(ran)) == list(range(count))
    assert {(state, attempts) for receiver, state, attempts in rows() if receiver} == {("done", 1)}
    assert not Pause.objects.exists()


def test_a_pause_holds_no_other_delivery(bus: Bus, watch: Any, ran: list[Any]):
    """The other receivers of the message run, and other names are not held."""
    signal = receiver_of(ran)
    connect(signal, lambda **kwargs: ran.append("other"), "other")
    ledger.pause("receiver", "receiver")
    ledger.pause("receiver", "receiver2")
    ledger.pause("signal", "receiver")
    ledger.pause("queue", "email")
    watch.refresh()
    signal.send(None)
    bus.work()

    assert ran == ["other"]
    assert rows() == [("other", "done", 1), ("receiver", "held", 0)]


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ("receiver:crm.*", {"crm.sync", "crm.tag"}),
        ("receiver:*.sync,mail.send", {"crm.sync", "mail.send"}),
        ("receiver:*rm.s*", {"crm.sync"}),
        ("receiver:crm.* queue:signalbus", {"crm.sync", "crm.tag"}),
        ("receiver:crm.* queue:email", set()),
        ("signal:tests.* receiver:mail.send", {"mail.send"}),
        ("signal:other.*", set()),
    ],
)
def test_a_paused_filter_holds_the_deliveries_that_match_all_its_words(
    bus: Bus, watch: Any, ran: list[Any], words: str, held: set[str]
):
    """With stars and alternatives; a resumption releases it."""
    signal = new_signal(durable=True)
    for name in ("crm.sync", "crm.tag", "mail.send"):
        connect(signal, lambda **kwargs: ran.append(1), name)
    ledger.pause("filter", words)
    watch.refresh()
    signal.send(None)
    bus.work()
    assert {receiver for receiver, state, _ in rows() if state == "held"} == held

    assert ledger.resume("filter", words) == len(held)
    watch.refresh()
    sweep()
    bus.work()
    assert len(ran) == 3


def test_a_renamed_receiver_and_signal_stay_paused(bus: Bus, watch: Any, ran: list[Any]):
    """A pause holds by each name that there was."""
    signal = receiver_of(ran, was=["old"])
    ledger.pause("receiver", "old")
    watch.refresh()
    signal.send(None)
    bus.work()

    renamed = Signal(f"{signal.name}.new", was=[signal.name], durable=True)
    connect(renamed, lambda **kwargs: ran.append(1), "renamed")
    ledger.pause("signal", signal.name)
    watch.refresh()
    renamed.send(None)
    bus.work()

    assert rows() == [("receiver", "held", 0), ("renamed", "held", 0)]


def test_a_retry_waits_and_keeps_its_error(bus: Bus, watch: Any):
    """An attempt that is due meanwhile is not made, nor counted; after the pause the attempts count on."""
    signal = new_signal(durable=True)
    fails(signal, ValueError("first"), retry=Retry(base_delay=1))
    signal.send(None)
    bus.work()
    ledger.pause("receiver", "failing")
    watch.refresh()
    bus.come_again()
    assert (only().state, only().attempts, only().error) == ("held", 1, "ValueError: first")

    ledger.resume("receiver", "failing")
    watch.refresh()
    bus.come_again()
    assert (only().state, only().attempts) == ("pending", 2)


def test_a_pause_ends_by_itself(bus: Bus, watch: Any, ran: list[Any]):
    """At its end the sweeper releases what it holds, and nothing is held for it any more."""
    signal = receiver_of(ran)
    ledger.pause("receiver", "receiver", seconds=3600)
    watch.refresh()
    signal.send(None, number=1)
    bus.work()
    assert (sweep(), only().state) == (0, "held")

    Pause.objects.update(until=F("until") - timedelta(hours=1))
    signal.send(None, number=2)
    bus.work()  # by a worker that has not learnt of it yet
    assert ran == []
    assert sweep() == 2
    watch.refresh()
    bus.work()
    assert sorted(ran) == [1, 2]
    assert not Pause.objects.exists()


def test_a_delivery_held_after_the_resumption_is_due_at_once(bus: Bus, watch: Any, ran: list[Any]):
    """A worker that still remembers the pause asks the ledger in the transaction that holds the delivery."""
    signal = receiver_of(ran)
    ledger.pause("receiver", "receiver")
    watch.refresh()
    ledger.resume("receiver", "receiver")
    sweep()
    assert not Pause.objects.exists()
    signal.send(None, number=1)
    bus.work()
    watch.refresh()

    assert (sweep(), bus.work(), ran) == (1, 1, [1])


def test_a_rate_limits_the_release(bus: Bus, watch: Any, ran: list[Any]):
    """So many a second are due, whoever sweeps how often; what was missed meanwhile is not made up for at once."""
    signal = receiver_of(ran)
    ledger.pause("receiver", "receiver")
    watch.refresh()
    signal.send_many(None, [{"number": number} for number in range(60)])
    bus.work()
    ledger.resume("receiver", "receiver", rate=20)
    assert sweep() < 10  # as many as belong to the time since

    def pass_seconds(seconds: float) -> int:
        Pause.objects.update(resumed_at=Now() - timedelta(seconds=seconds))
        return sweep()

    assert pass_seconds(1) == 20
    assert pass_seconds(0.05) in {1, 2}
    assert pass_seconds(0) == 0
    Pause.objects.update(resume_rate=1)
    assert pass_seconds(3600) == 10
    Pause.objects.update(resume_rate=0.1)
    assert pass_seconds(11) == 1
    Pause.objects.update(resume_rate=None)
    assert sweep() > 10
    assert not Delivery.objects.filter(state=State.HELD).exists()


def test_deliveries_behind_a_held_one_are_checked_seldom(bus: Bus, watch: Any, ran: list[Any]):
    """The sweeper postpones it for two minutes: nothing goes on before a resumption."""
    signal = receiver_of(ran, ordered_by="key")
    ledger.pause("receiver", "receiver")
    watch.refresh()
    signal.send_many(None, [{"key": "a", "number": number} for number in range(2)])
    bus.work()
    prove_lost(bus)
    sweep()
    (behind,) = Delivery.objects.filter(state=State.PUBLISHED).annotate(clock=Now())

    assert (behind.due_at - behind.clock).total_seconds() > 60


def test_a_worker_runs_before_the_migration_is_applied(bus: Bus, watch: Any, ran: list[Any]):
    """Without the table of pauses nothing is paused."""
    signal = receiver_of(ran)
    with connection.schema_editor() as editor:
        editor.delete_model(Pause)
    try:
        assert watch.refresh() == []
        signal.send(None, number=1)
        bus.work()
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(Pause)

    assert ran == [1]


def test_a_pause_holds_what_waits_for_its_group_commit(bus: Bus, watch: Any, ran: list[Any]):
    """A delivery may be put off for as long as the rest of its batch takes: the gate is asked again before it runs."""
    if connection.vendor == "mysql":
        pytest.skip("MariaDB has no group commits")
    signal = receiver_of(ran)
    last = new_signal(durable=True)

    def receiver_that_takes_its_time(**kwargs: Any) -> None:
        ledger.pause("receiver", "receiver")
        watch.refresh()

    connect(last, receiver_that_takes_its_time, atomic=False)
    signal.send_many(None, [{"number": number} for number in range(3)])
    last.send(None)
    deliver([text for texts in bus.take() for text in texts], queue=QUEUE)

    assert ran == []
    assert rows() == [*[("receiver", "held", 0)] * 3, ("receiver_that_takes_its_time", "done", 1)]


def test_a_second_pause_holds_what_the_first_releases(bus: Bus, watch: Any, ran: list[Any]):
    """Each is resumed by itself."""
    signal = receiver_of(ran)
    ledger.pause("receiver", "receiver")
    ledger.pause("signal", signal.name)
    watch.refresh()
    signal.send(None, number=1)
    bus.work()
    ledger.resume("receiver", "receiver")
    watch.refresh()
    sweep()
    bus.work()

    assert (only().state, only().held_reason, ran) == ("held", f"signal:{signal.name} is paused", [])


def test_pausing_again_stops_the_release(bus: Bus, watch: Any, ran: list[Any]):
    """Deliveries that were not released yet stay held."""
    signal = receiver_of(ran)
    ledger.pause("receiver", "receiver", reason="first")
    watch.refresh()
    signal.send(None)
    bus.work()
    ledger.resume("receiver", "receiver", rate=0.001)
    sweep()
    assert not ledger.pause("receiver", "receiver", reason="second")
    watch.refresh()

    assert (sweep(), only().state) == (0, "held")
    (paused,) = ledger.pauses()
    assert (paused.reason, paused.resumed_at, paused.rate, paused.held) == ("second", None, None, 1)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("options", [{}, {"durable": False}, {"atomic": False}], ids=["row", "no row", "atomic=False"])
def test_a_worker_that_is_killed_while_paused_loses_nothing(  # noqa: PLR0917 - fixtures
    bus: Bus, watch: Any, ran: list[Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], when: str
):
    """The message is redelivered, before and after the commit that holds the delivery."""
    signal = receiver_of(ran, **options)
    ledger.pause("receiver", "receiver")
    watch.refresh()
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

    ledger.resume("receiver", "receiver")
    watch.refresh()
    assert (sweep(), bus.work(), ran) == (1, 1, [1])


def test_without_a_pause_a_delivery_takes_no_statement_more(bus: Bus, watch: Any, ran: list[Any]):
    """A worker that has read the pauses runs the same statements as one without the gate."""

    def count() -> int:
        signal.send(None)
        (texts,) = bus.take()
        with CaptureQueriesContext(connection) as caught:
            deliver(texts, queue=QUEUE)
        return len(caught)

    signal = receiver_of(ran)
    count()
    gates.GATES.clear()
    without = count()
    obey_pauses()
    watch.refresh()
    assert count() == without
    ledger.pause("receiver", "of another signal")
    watch.refresh()
    assert count() == without


def test_an_audit_counts_held_deliveries_as_waiting(bus: Bus, watch: Any, ran: list[Any]):
    """Nothing is missing."""
    signal = receiver_of(ran)
    ledger.pause("signal", signal.name)
    watch.refresh()
    signal.send(None)
    bus.work()
    let_wait(86400 * 300)

    found = ledger.audit(StoredMessage.objects.get().created_at, ledger.Evidence())
    assert [account.counts["waiting"] for account in found.accounts.values()] == [1]
    assert found.missing_total == 0


def test_a_release_includes_deliveries_that_are_being_held(bus: Bus, watch: Any, ran: list[Any]):
    """A delivery that is held in a transaction which has not ended is not left behind by the release."""
    if connection.vendor == "sqlite":
        pytest.skip("one writer at a time")
    signal = receiver_of(ran)
    ledger.pause("receiver", "receiver")
    watch.refresh()
    signal.send(None, number=1)
    with transaction.atomic():
        bus.work()
        with pytest.raises(DatabaseError):
            elsewhere_raises(resume_or_time_out)
    assert only().state == "held"
    ledger.resume("receiver", "receiver")
    watch.refresh()
    assert (sweep(), bus.work(), ran) == (1, 1, [1])


def resume_or_time_out() -> None:
    """Resume on a connection that waits for no lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SET lock_timeout = '50ms'" if connection.vendor == "postgresql" else "SET innodb_lock_wait_timeout = 1"
        )
    ledger.resume("receiver", "receiver")


def elsewhere_raises(work: Any) -> None:
    """Call a function on another connection, and raise what it raises."""

    def caught() -> BaseException | None:
        try:
            work()
        except DatabaseError as error:
            return error
        return None

    (error,) = elsewhere(caught)
    if error is not None:
        raise error


@pytest.mark.parametrize("options", [{}, {"durable": False}], ids=["row", "no row"])
def test_a_process_lost_while_it_holds_a_delivery_is_no_attempt(bus: Bus, watch: Any, ran: list[Any], options: Any):
    """It is unknown whether the receiver had begun: the message is redelivered, and is held."""
    signal = receiver_of(ran, **options)
    ledger.pause("receiver", "receiver")
    watch.refresh()
    signal.send(None, number=1)
    ((text,),) = bus.take()
    assert Loss(text, None, "child", "signal 9 (SIGKILL)", lambda: None).is_settled(gates.is_held)
    deliver([text], queue=QUEUE, redelivered=True)

    assert (only().state, only().attempts, only().error) == ("held", 0, "")

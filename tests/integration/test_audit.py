"""The audit: each message is done, failed for good, discarded, in flight, or reported as missing."""

from __future__ import annotations

import io
import json
import threading
import time
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.db.models import F

from signalbus import Reject, Retry, Signal
from signalbus.ledger import operations as ledger
from signalbus.ledger.operations import ledger_audit
from signalbus.ledger.sweeps import due
from signalbus.models import Delivery, QueueState, StoredMessage
from signalbus.receiving.sweeping.due_publication import mark, sweep
from signalbus.wire.message import delivery_id
from tasks.admissions.models import Academy

from .bus import QUEUE, Bus, connect, let_wait, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = ("done", "skipped", "dead", "discarded", "retrying", "waiting", "running")


@pytest.fixture
def durable() -> Signal:
    """A durable signal without receivers."""
    return new_signal(durable=True)


@pytest.fixture
def received(durable: Signal) -> list[int]:
    """The numbers that a receiver of the signal got."""
    numbers: list[int] = []
    connect(durable, lambda number, **kwargs: numbers.append(number), "receiver")
    return numbers


def audit(*arguments: object, fails: bool = False) -> dict[str, Any]:
    """Run the command, and return its JSON object."""
    out = io.StringIO()
    expected = pytest.raises(CommandError, match="missing") if fails else nullcontext()
    with expected as raised:
        call_command("signalbus", "audit", "--json", *map(str, arguments), stdout=out, stderr=io.StringIO())
    assert raised is None or raised.value.returncode == 1
    books: dict[str, Any] = json.loads(out.getvalue())
    for row in books["rows"]:
        assert row["sent"] == sum(row[word] for word in WORDS) + len(row["missing"])
    assert books["missing_total"] == sum(len(row["missing"]) for row in books["rows"])
    return books


@contextmanager
def working(bus: Bus) -> Iterator[None]:
    """Run a worker beside the test, whose claimed messages are visible like a real one's."""
    stop = threading.Event()
    bus.client.hset("unacked", "tag", "[]")

    def work() -> None:
        try:
            while not stop.wait(0.02):
                bus.work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        bus.client.delete("unacked")


def test_an_idle_bus_has_an_empty_audit(bus: Bus):
    """Nothing is missing."""
    books = audit()

    assert books["schema"] == 2
    assert books["rows"] == []
    assert books["missing_total"] == 0


def test_each_delivery_is_counted_once(bus: Bus, durable: Signal):
    """For each signal and receiver, the columns add up to the number of sent messages."""

    def receiver_that_rejects(**kwargs):
        raise Reject("no")

    def receiver_that_fails(**kwargs):
        raise ValueError

    connect(durable, lambda **kwargs: None, "good")
    connect(durable, receiver_that_rejects, "bad")
    connect(durable, receiver_that_fails, "slow", retry=Retry(max_attempts=3))
    durable.send_many(None, [{}, {}])
    bereft = new_signal(durable=True)
    connect(bereft, lambda **kwargs: None, "gone")
    academy = Academy.objects.create(name="A", slug="a")
    bereft.send_many(None, [{"instance": academy}, {"instance": academy}])
    academy.delete()
    bus.work()
    ledger.discard([Delivery.objects.filter(receiver="bad").values_list("id", flat=True)[0]])

    books = audit()

    found = {row["receiver"]: row for row in books["rows"]}
    assert {row["signal"] for row in books["rows"]} == {durable.name, bereft.name}
    assert all(row["sent"] == 2 for row in books["rows"])
    assert (found["bad"]["dead"], found["bad"]["discarded"]) == (1, 1)
    assert (found["good"]["done"], found["slow"]["retrying"], found["gone"]["skipped"]) == (2, 2, 2)
    assert books["missing_total"] == 0


def test_only_failed_deliveries_count_as_retrying(bus: Bus, durable: Signal):
    """A delivery before its first attempt, or whose retry is in flight, counts as waiting."""

    def receiver_that_fails(**kwargs):
        raise ValueError

    connect(durable, receiver_that_fails)
    durable.send(None)
    bus.work()
    durable.send_later(timedelta(hours=1), None)

    (row,) = audit("--wait", 0)["rows"]
    assert (row["sent"], row["retrying"], row["waiting"]) == (2, 1, 1)
    out = io.StringIO()
    call_command("signalbus", "audit", "--wait", "0", stdout=out, stderr=io.StringIO())
    head, numbers, *_ = out.getvalue().splitlines()
    assert dict(zip(head.split(), numbers.split(), strict=False))["RETRYING"] == "1"

    Delivery.objects.filter(attempts=1).update(due_at=F("created_at"))
    sweep()
    (row,) = audit("--wait", 0)["rows"]
    assert (row["sent"], row["retrying"], row["waiting"]) == (2, 0, 2)


def test_messages_deleted_from_the_broker_are_found_and_repaired(bus: Bus, durable: Signal, received: list[int]):
    """The queue is empty, and no worker has claimed anything: all published deliveries are missing, each by its id."""
    ids = {str(delivery_id(durable.send(None, number=number).id, "receiver")) for number in range(3)}
    bus.client.delete(QUEUE)
    let_wait()

    books = audit(fails=True)

    (row,) = books["rows"]
    assert set(row["missing"]) == ids
    assert (row["sent"], row["waiting"]) == (3, 0)

    audit("--repair")
    bus.work()

    assert sorted(received) == [0, 1, 2]
    assert audit()["rows"][0]["done"] == 3


def test_some_deleted_messages_are_found_among_others(bus: Bus, durable: Signal, received: list[int], monkeypatch):
    """A marker that a worker returns tells the lost from the late."""
    for number in range(5):
        durable.send(None, number=number)
    for _ in range(2):
        bus.client.rpop(QUEUE)
    let_wait()
    monkeypatch.setattr(due, "GRACE", 0.2)

    with working(bus):
        books = audit(fails=True)

    (row,) = books["rows"]
    assert (row["sent"], row["done"], len(row["missing"])) == (5, 3, 2)
    assert books["silent"] == []
    audit("--repair")
    bus.work()
    assert sorted(received) == [0, 1, 2, 3, 4]


def test_a_waiting_message_is_not_missing(bus: Bus, durable: Signal, received: list[int]):
    """Without a worker it is unknown what a queue that is not empty has lost; the audit says so."""
    for number in range(3):
        durable.send(None, number=number)
    let_wait()

    books = audit("--wait", 0.3)

    assert books["rows"][0]["waiting"] == 3
    assert books["silent"] == [""]
    err = io.StringIO()
    call_command("signalbus", "audit", "--wait", "0.1", stdout=io.StringIO(), stderr=err)
    assert "The default queue did not answer" in err.getvalue()


def test_a_claimed_message_is_not_missing(bus: Bus, durable: Signal, received: list[int]):
    """The queue is empty, and a worker has not run the message yet."""
    durable.send(None, number=1)
    bus.client.rename(QUEUE, "elsewhere")
    bus.client.hset("unacked", "tag", "[]")
    let_wait()

    assert audit("--wait", 0.2)["rows"][0]["waiting"] == 1


def test_a_message_published_a_moment_ago_is_not_missing(bus: Bus, durable: Signal, received: list[int]):
    """The message may be between a commit and its publication, or with a worker."""
    durable.send(None, number=1)
    bus.client.delete(QUEUE)

    assert audit("--wait", 0)["missing_total"] == 0


@pytest.mark.parametrize("database", ["postgres"])
def test_a_running_delivery_is_not_missing(bus: Bus, durable: Signal):
    """A receiver's transaction has locked its row."""
    seen: list[dict[str, Any]] = []

    def elsewhere() -> None:
        try:
            seen.append(audit("--wait", 0))
        finally:
            connections.close_all()

    def receiver_that_takes_long(**kwargs):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(30)

    connect(durable, receiver_that_takes_long, "receiver")
    durable.send(None)
    let_wait()
    mark()
    QueueState.objects.update(returned_at=F("marked_at"), proven_at=F("marked_at"))

    bus.work()

    assert [books["missing_total"] for books in seen] == [0]


def test_a_row_that_a_message_should_have_is_missing(bus: Bus, durable: Signal, received: list[int], monkeypatch):
    """A message names its recipients, of any queue; a delivery without a row is found by its id."""
    monkeypatch.setattr(ledger_audit, "CHUNK", 2)
    connect(durable, lambda **kwargs: None, "mail", queue="email")
    ids = [durable.send(None, number=number).id for number in range(5)]
    bus.work()
    bus.work("email")
    (mail, receiver) = (delivery_id(ids[3], "mail"), delivery_id(ids[4], "receiver"))
    Delivery.objects.filter(id__in=[mail, receiver]).delete()

    books = audit(fails=True)

    assert {row["receiver"]: row["missing"] for row in books["rows"]} == {
        "mail": [str(mail)],
        "receiver": [str(receiver)],
    }
    assert all(row["sent"] == 5 for row in books["rows"])

    audit("--repair")

    assert bus.client.llen("email") == 1
    bus.work("email")
    bus.work()
    assert received == [0, 1, 2, 3, 4, 4]
    assert audit()["missing_total"] == 0


def test_a_message_that_is_not_durable_misses_no_rows(bus: Bus, signal: Signal):
    """Only its failed deliveries have rows."""

    def receiver_that_raises(**kwargs):
        raise ValueError

    connect(signal, lambda **kwargs: None, "good")
    connect(signal, receiver_that_raises, "bad")
    signal.send(None)
    bus.work()

    assert rows() == [("bad", "pending", 1)]
    assert audit()["missing_total"] == 0


def test_a_purge_deletes_all_deliveries_of_a_message_or_none(bus: Bus, durable: Signal, received: list[int]):
    """A done delivery stays while another one of its message is dead, or it would count as missing."""

    def receiver_that_rejects(**kwargs):
        raise Reject("no")

    connect(durable, receiver_that_rejects, "bad")
    durable.send(None, number=1)
    bus.work()
    Delivery.objects.update(ended_at=F("ended_at") - timedelta(days=8))

    assert ledger.purge(3600) == 0
    assert audit()["missing_total"] == 0
    ledger.discard(list(Delivery.objects.filter(receiver="bad").values_list("id", flat=True)))
    assert ledger.purge(0) == 2
    assert not StoredMessage.objects.exists()


def test_since_limits_the_audit(bus: Bus, durable: Signal, received: list[int]):
    """A wrong value is an error."""
    durable.send(None, number=1)
    StoredMessage.objects.update(created_at=F("created_at") - timedelta(hours=3))

    assert audit("--since", "2h", "--wait", 0)["rows"] == []
    assert audit("--since", "1d", "--wait", 0)["rows"][0]["sent"] == 1
    with pytest.raises(CommandError, match="as 90m, 24h or 7d"):
        call_command("signalbus", "audit", "--since", "yesterday")


def test_the_table_has_a_line_for_each_signal_and_receiver(bus: Bus, durable: Signal, received: list[int]):
    """The table also lists the ids of missing deliveries."""
    sent = durable.send(None, number=1)
    bus.client.delete(QUEUE)
    let_wait()
    out = io.StringIO()

    with pytest.raises(CommandError, match="1 missing"):
        call_command("signalbus", "audit", stdout=out)

    assert f"{durable.name} -> receiver" in out.getvalue()
    assert f"missing: {delivery_id(sent.id, 'receiver')}" in out.getvalue()


def test_a_repaired_row_of_an_ordered_signal_runs_last(bus: Bus):
    """The position of the deleted row is lost, so the delivery runs after the waiting ones."""
    told: list[int] = []
    ordered = new_signal(durable=True, ordered_by="key")
    connect(ordered, lambda number, **kwargs: told.append(number), "receiver")
    ids = [ordered.send(None, key="k", number=number).id for number in range(3)]
    Delivery.objects.filter(message=ids[1]).delete()

    audit("--repair", "--wait", 0)
    bus.work()
    bus.work()

    assert told == [0, 2, 1]


def test_a_repair_that_comes_late_does_no_harm(bus: Bus, durable: Signal, received: list[int]):
    """A delivery that ran between the audit and the repair does not run again."""
    durable.send(None, number=1)
    let_wait()
    texts = bus.take()
    found = ledger.audit(StoredMessage.objects.get().created_at, ledger.Evidence(frozenset({""}), time.monotonic()))
    assert found.missing_total == 1
    for item in texts:
        from signalbus.receiving.routing.batch import deliver

        deliver(item, queue=QUEUE)

    ledger.repair(found)
    with transaction.atomic():
        assert [state for _, state, _ in rows()] == ["done"]


@pytest.mark.parametrize("attempts", [1, 5])
def test_a_delivery_that_waits_for_its_turn_is_not_missing(bus: Bus, attempts: int):
    """The message was dropped, because the delivery before it is dead, or waits for its next attempt."""
    ordered = new_signal(durable=True, ordered_by="key")

    def receiver_that_fails(**kwargs):
        raise ValueError

    connect(ordered, receiver_that_fails, "failing", retry=Retry(max_attempts=attempts, base_delay=7200.0))
    for _ in range(3):
        ordered.send(None, key="k")
    bus.work()
    let_wait(60)

    (row,) = audit()["rows"]

    assert (row["sent"], row["missing"]) == (3, [])


def test_an_order_that_was_deleted_from_the_broker_is_found(bus: Bus):
    """The head is missing itself, and so are those behind it; each is published again, in order."""
    told: list[int] = []
    ordered = new_signal(durable=True, ordered_by="key")
    connect(ordered, lambda number, **kwargs: told.append(number), "receiver")
    for number in range(3):
        ordered.send(None, key="k", number=number)
    bus.client.delete(QUEUE)
    let_wait()

    assert audit(fails=True)["missing_total"] == 3

    audit("--repair")
    bus.work()
    assert told == [0, 1, 2]

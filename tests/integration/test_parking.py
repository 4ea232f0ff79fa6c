"""Promise 7: an unknown message is parked, tried again with growing delays, and given up after a day."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db.models import F
from django.test import override_settings
from django.utils import timezone

from signalbus import Retry, Signal, codec, delivery_dead
from signalbus.doctor.ledger_judgements import judge_failures
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, StoredMessage
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.receiving.sweeping.sweeper import Sweeper
from signalbus.services.groups import failure_groups
from signalbus.services.queries.lookup import filter_from
from signalbus.wire.signing import Signer
from signalbus.wire.values import registered_types
from tasks.admissions.models import Academy
from tests.servers import wait_until

from .bus import QUEUE, Bus, connect, new_signal, only, rows, text_of


def send_to(signal: Signal, bus: Bus, uid: str) -> list[str]:
    """Send to a receiver that is disconnected when the message arrives; return the texts."""
    receiver = connect(signal, lambda **kwargs: None, uid)
    signal.send(None, number=1)
    signal.disconnect(receiver, dispatch_uid=uid)
    (texts,) = bus.take()
    return texts


def delay() -> float:
    """Return the seconds from the last parking of the only delivery to its next try."""
    row = only()
    assert row.failed_at is not None
    return (row.due_at - row.failed_at).total_seconds()


def parked_for(seconds: float) -> None:
    """Let the only delivery have been parked this long ago."""
    Delivery.objects.update(parked_at=F("parked_at") - timedelta(seconds=seconds))


def test_promise_7_an_unknown_receiver_is_parked_and_runs_once_it_is_known(bus: Bus, signal: Signal):
    """Known receivers of the message run at once, the unknown one when it is deployed, each once."""
    ran = []
    connect(signal, lambda **kwargs: ran.append("known"), "known")
    texts = send_to(signal, bus, "to come")
    deliver(texts, queue=QUEUE)
    assert ran == ["known"]
    assert rows() == [("to come", "parked", 0)]
    assert "does not know the receiver to come" in only().error
    bus.come_again()
    assert rows() == [("to come", "parked", 0)]

    connect(signal, lambda number, **kwargs: ran.append(f"to come {number}"), "to come")
    bus.come_again()

    assert ran == ["known", "to come 1"]
    assert rows() == [("to come", "done", 1)]
    assert only().parked_at is None


def test_parked_deliveries_are_one_group_for_each_receiver(bus: Bus):
    """`failed --group` lists what a renamed receiver left, as it lists failures; the group ends with a success."""
    signal = new_signal(durable=True)
    texts = [*send_to(signal, bus, "to come"), *send_to(signal, bus, "to come")]
    deliver(texts, queue=QUEUE)

    (group,) = failure_groups(filter_from([])).groups

    assert (group.count, dict(group.states), group.example.receiver) == (2, {"parked": 2}, "to come")
    connect(signal, lambda **kwargs: None, "to come")
    bus.come_again()
    assert set(Delivery.objects.values_list("state", "error_group")) == {("done", None)}


def test_promise_7_an_unknown_signal_is_parked_for_each_recipient(bus: Bus):
    """A worker of an older release does not have the signal."""
    ran: list[str] = []
    signal = new_signal()
    name = signal.name
    connect(signal, lambda **kwargs: None, "one")
    connect(signal, lambda **kwargs: None, "two")
    signal.send(None)
    (texts,) = bus.take()
    body = texts[0][74:].replace(name, f"{name}.next")

    deliver([text_of(body)], queue=QUEUE)

    assert rows() == [("one", "parked", 0), ("two", "parked", 0)]
    following = Signal(f"{name}.next")
    connect(following, lambda **kwargs: ran.append("one"), "one")
    connect(following, lambda **kwargs: ran.append("two"), "two")
    bus.come_again()
    assert sorted(ran) == ["one", "two"]
    assert rows() == [("one", "done", 1), ("two", "done", 1)]


def test_promise_7_an_open_message_of_an_unknown_signal_is_parked(bus: Bus):
    """The receivers are looked up when the signal is known."""
    signal = new_signal(open=True)
    name = signal.name
    signal.send(None)
    (texts,) = bus.take()
    deliver([text_of(texts[0][74:].replace(name, f"{name}.next"))], queue=QUEUE)
    assert rows() == [("", "parked", 0)]

    ran: list[str] = []
    following = Signal(f"{name}.next", open=True)
    connect(following, lambda **kwargs: ran.append("one"), "one")
    bus.come_again()
    bus.come_again()

    assert ran == ["one"]
    assert rows() == [("", "done", 0), ("one", "done", 1)]
    assert set(Delivery.objects.values_list("error", "error_group", "parked_at")) == {("", None, None)}


def send_next_model(signal: Signal, bus: Bus) -> list[str]:
    """Send a model that only the next release has; return the texts."""
    signal.send(None, model=Academy)
    (texts,) = bus.take()
    return [text_of(texts[0][74:].replace("admissions.Academy", "admissions.Next"))]


@pytest.mark.parametrize("redelivered", [False, True])
def test_promise_7_a_class_that_this_worker_does_not_have_is_parked(bus: Bus, signal: Signal, told, redelivered: bool):
    """A payload's class may come with the next release: no attempt is counted."""
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "to come", retry=Retry(max_attempts=1))
    deliver(send_next_model(signal, bus), queue=QUEUE, redelivered=redelivered)

    assert rows() == [("to come", "parked", 0)]
    assert "admissions.Next" in only().error
    bus.come_again()
    assert rows() == [("to come", "parked", 0)]
    assert (ran, told) == ([], [])


def test_promise_7_a_class_that_comes_with_the_next_release(bus: Bus, signal: Signal, monkeypatch):
    """The worker that has it runs the delivery, in its first attempt."""
    ran = []
    connect(signal, lambda model, **kwargs: ran.append(model), "to come", retry=Retry(max_attempts=1))
    deliver(send_next_model(signal, bus), queue=QUEUE)

    monkeypatch.setitem(apps.get_app_config("admissions").models, "next", Academy)
    bus.come_again()

    assert ran == [Academy]
    assert rows() == [("to come", "done", 1)]
    assert only().parked_at is None


def test_a_message_of_an_unknown_class_is_dead_after_a_day(bus: Bus, signal: Signal, told):
    """The day begins with the first parking, however often it was claimed since."""
    connect(signal, lambda **kwargs: None, "to come")
    deliver(send_next_model(signal, bus), queue=QUEUE)
    parked_for(23 * 3600)
    bus.come_again()
    assert rows() == [("to come", "parked", 0)]
    parked_for(3600)
    bus.come_again()

    assert rows() == [("to come", "dead", 0)]
    assert only().error.startswith("given up after 864")
    assert [(kind, receiver) for kind, receiver, *_ in told] == [("dead", "to come")]


@pytest.mark.parametrize("redelivered", [False, True])
def test_an_open_message_without_receivers_is_skipped_with_the_reason(bus: Bus, caplog, redelivered: bool):
    """The signal is known, but no receiver of it; the delivery can be retried once one is deployed."""
    signal = new_signal(open=True)
    signal.send(None)
    (texts,) = bus.take()
    deliver(texts, queue=QUEUE, redelivered=redelivered)

    assert rows() == [("", "skipped", 0)]
    assert "no receiver listens to it here" in only().error
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert signal.name in caplog.text
    assert bus.come_again() == 0

    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "one")
    assert ledger.retry([only().pk]) == 1
    bus.come_again()
    bus.come_again()
    assert ran == [1]


def test_a_parked_open_message_without_receivers_is_skipped(bus: Bus):
    """The row of the parked message becomes the skipped one."""
    signal = new_signal(open=True)
    name = signal.name
    signal.send(None)
    (texts,) = bus.take()
    deliver([text_of(texts[0][74:].replace(name, f"{name}.next"))], queue=QUEUE)
    following = Signal(f"{name}.next", open=True)
    bus.come_again()

    assert following.name == f"{name}.next"
    assert rows() == [("", "skipped", 0)]


def test_promise_7_a_newer_version_is_parked_unchanged(bus: Bus, signal: Signal, caplog):
    """The text is correctly signed, but this worker does not read its version."""
    body = '9\n{"of": "a format to come"}\n[]'
    deliver([text_of(body)], queue=QUEUE)
    deliver([text_of(body)], queue=QUEUE)

    assert rows() == [("", "parked", 0)]
    assert (only().message.text, only().message.sealed) == (body, False)
    bus.come_again()
    assert rows() == [("", "parked", 0)]
    assert bus.take() == []


def test_promise_7_an_unknown_key_is_parked_sealed(bus: Bus, signal: Signal):
    """The text is kept unchanged, and not signed by this worker."""
    text = Signer(["to come"], 1000).sign("1\n{}\n[]")
    deliver([text], queue=QUEUE)

    assert rows() == [("", "parked", 0)]
    assert (only().message.text, only().message.sealed) == (text, True)
    bus.come_again()
    assert rows() == [("", "parked", 0)]


def test_a_text_that_proves_forged_is_dead(bus: Bus):
    """The key that becomes known did not sign it."""
    good = Signer(["to come"], 1000).sign("1\n{}\n[]")
    deliver([good[:-1] + "x"], queue=QUEUE)
    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["now", "to come"]}):
        bus.come_again()

    assert rows() == [("", "dead", 0)]
    assert only().error.startswith("Forged")


def test_the_delays_grow_up_to_five_minutes(bus: Bus, signal: Signal):
    """Each delay is as long as the message has been parked, at least 2 seconds, at most 300."""
    texts = send_to(signal, bus, "to come")
    deliver(texts, queue=QUEUE)
    assert 1.9 <= delay() <= 2.2

    for age, wanted in ((10, 10), (50, 60), (2000, 300)):
        parked_for(age)
        bus.come_again()
        assert wanted - 0.2 <= delay() <= wanted + 5
        assert rows() == [("to come", "parked", 0)]


def test_a_parked_delivery_is_dead_after_a_day(bus: Bus, signal: Signal, caplog):
    """The dead delivery is listed, logged, and reported by delivery_dead."""
    heard: list[str] = []

    def on_dead(delivery, **kwargs):
        heard.append(delivery.receiver)

    deliver(send_to(signal, bus, "to come"), queue=QUEUE)
    parked_for(24 * 3600)
    delivery_dead.connect(on_dead)
    try:
        bus.come_again()
    finally:
        delivery_dead.disconnect(on_dead)

    assert rows() == [("to come", "dead", 0)]
    assert only().error.startswith("given up after 864")
    assert heard == ["to come"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert bus.come_again() == 0


def test_a_sealed_text_is_dead_after_a_day(bus: Bus, caplog):
    """The sweeper that cannot verify it reports that."""
    deliver([Signer(["to come"], 1000).sign("1\n{}\n[]")], queue=QUEUE)
    parked_for(24 * 3600)

    bus.come_again()

    assert rows() == [("", "dead", 0)]
    assert "gave up a parked text" in caplog.text


def test_a_retry_by_hand_begins_a_new_day(bus: Bus, signal: Signal):
    """A delivery that was given up is parked again, not dead at once."""
    deliver(send_to(signal, bus, "to come"), queue=QUEUE)
    parked_for(24 * 3600)
    bus.come_again()

    assert ledger.retry([only().pk]) == 1
    bus.come_again()

    assert rows() == [("to come", "parked", 0)]


def test_a_worker_that_starts_makes_parked_deliveries_due(bus: Bus, signal: Signal):
    """A new worker may know more than the last one."""
    deliver(send_to(signal, bus, "to come"), queue=QUEUE)
    parked_for(2000)
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "to come")
    sweeper = Sweeper(3600)
    sweeper.start()
    wait_until(lambda: bus.client.llen(QUEUE), what="the sweeper to publish")
    sweeper.stop()
    sweeper.join(timeout=5)
    assert not sweeper.is_alive()

    bus.work()
    assert ran == [1]


def test_a_running_delivery_is_not_parked(bus: Bus, signal: Signal):
    """A second copy may reach a worker of the older release."""
    texts = send_to(signal, bus, "to come")
    deliver(texts, queue=QUEUE)
    Delivery.objects.update(state="running", attempts=1)

    deliver(texts, queue=QUEUE)

    assert rows() == [("to come", "running", 1)]


def test_a_row_of_a_newer_release_does_not_stop_the_sweeper(bus: Bus, signal: Signal):
    """An older worker's sweeper postpones a body of a newer version, and publishes the others."""
    deliver(send_to(signal, bus, "to come"), queue=QUEUE)
    foreign = Signer(["to come"], 1000).sign(f'1\n{{"i":"{"7" * 32}","s":"x","t":1,"r":["\\u0000"]}}\n[]')
    deliver([foreign], queue=QUEUE)  # once its key is known, it names a receiver that PostgreSQL cannot hold
    newer = StoredMessage.objects.create(id="0" * 31 + "1", signal="x", text="9\n{}\n", created_at=timezone.now())
    broken = StoredMessage.objects.create(id="0" * 31 + "2", signal="x", text="ö", created_at=timezone.now())
    template = Delivery.objects.get(receiver="to come")
    for message, receiver in ((newer, "newer"), (broken, "broken")):
        values: dict[str, Any] = {"id": message.pk, "message": message, "receiver": receiver}
        Delivery.objects.create(due_at=template.created_at, created_at=template.created_at, **values)
    Delivery.objects.update(due_at=template.created_at)

    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["now", "to come"]}):
        assert sweep() == 1

    expected = [("broken", "dead", 0), ("newer", "parked", 0), ("to come", "published", 0)]
    assert [row for row in rows() if row[0] in {"broken", "newer", "to come"}] == expected
    assert len(bus.take()) == 1


class Price:
    """A value of a type that only one side has registered."""

    def __init__(self, amount: int) -> None:
        self.amount = amount


def test_a_value_of_a_type_that_is_not_registered_here_is_parked_under_its_name(bus: Bus, caplog):
    """The log and the ledger name the type, doctor counts it, and the delivery runs once the type is registered."""
    signal, seen = new_signal(durable=True), list[int]()
    connect(signal, lambda price, **kwargs: seen.append(price.amount), "receiver")

    def register() -> None:
        codec.register(Price, name="price", encode=lambda price: price.amount, decode=Price)

    register()
    signal.send(None, price=Price(3))
    registered_types.forget(registered_types.by_name["price"])
    bus.work()

    assert rows() == [("receiver", "parked", 0)]
    assert only().error.startswith('the type "price": the sender has registered it, and this worker has not')
    assert 'the type "price"' in caplog.text
    assert "1 parked" in judge_failures(ledger.failures()).text
    out = io.StringIO()
    call_command("signalbus", "failed", stdout=out)
    assert 'the type "price"' in out.getvalue()
    register()
    try:
        bus.come_again()
    finally:
        registered_types.forget(registered_types.by_name["price"])
    assert (rows(), seen) == ([("receiver", "done", 1)], [3])

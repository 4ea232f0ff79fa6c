"""`delivery_dead` is sent once for each delivery that becomes dead, wherever that happens."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from django.db.models import F
from django.test import override_settings

from signalbus import Reject, Retry, delivery_dead
from signalbus.exceptions import PayloadError
from signalbus.ledger import sweeps as ledger
from signalbus.ledger.base.clock import Now
from signalbus.models import Delivery, State, StoredMessage
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.due_publication import sweep

from .bus import Bus, connect, fails, new_signal, only, text_of
from .test_several_databases import other
from .test_transactions import rolled_back

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["other"]


@pytest.fixture
def deaths() -> Iterator[list[Any]]:
    """The signals `delivery_dead`: (delivery, error)."""
    heard: list[Any] = []

    def on_dead(sender, delivery, error, **kwargs):
        assert sender == delivery.signal
        heard.append((delivery, error))

    delivery_dead.connect(on_dead)
    yield heard
    delivery_dead.disconnect(on_dead)


def dead_rows() -> set[tuple[Any, str, str]]:
    """Return (message, signal, receiver) of all dead deliveries in the ledger."""
    rows = Delivery.objects.filter(state=State.DEAD)
    return set(rows.values_list("message_id", "message__signal", "receiver"))


def told(deaths: list[Any]) -> list[tuple[Any, str, str]]:
    """Return the same of what was told."""
    return [(delivery.message_id, delivery.signal, delivery.receiver) for delivery, _ in deaths]


def of_an_attempt(bus: Bus) -> None:
    """A receiver rejects its message."""
    signal = new_signal(durable=True)
    fails(signal, Reject("never"), retry=Retry(max_attempts=1))
    signal.send(None)
    bus.work()


def of_what_cannot_be_sent(bus: Bus) -> None:
    """`send_robust()` records a payload that it cannot send."""
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "first")
    connect(signal, lambda **kwargs: None, "second", queue="email")
    signal.send_robust(None, lock=object())


def of_a_row_that_cannot_be_published(bus: Bus) -> None:
    """The sweeper finds a row whose text cannot be read."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    bus.take()
    StoredMessage.objects.update(text="garbage")
    Delivery.objects.update(state=State.PENDING, due_at=Now())
    sweep()


def of_an_unknown_receiver(bus: Bus) -> None:
    """A worker gets a parked message again after its day."""
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    signal.disconnect(dispatch_uid="receiver")
    bus.work()
    Delivery.objects.update(parked_at=F("parked_at") - timedelta(days=2), due_at=Now())
    sweep()
    bus.work()


def park_a_text(bus: Bus) -> str:
    """Receive a text whose key this worker does not have."""
    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["a key to come"]}):
        text = text_of("{}")
    deliver([text])
    assert only().state == State.PARKED
    Delivery.objects.update(parked_at=F("parked_at") - timedelta(days=2), due_at=Now())
    return text


def of_a_text_that_comes_again(bus: Bus) -> None:
    """A worker gets a sealed text again after its day."""
    deliver([park_a_text(bus)])


def of_a_text_that_is_due(bus: Bus) -> None:
    """The sweeper looks at a sealed text after its day."""
    park_a_text(bus)
    sweep()


def of_a_refused_text(bus: Bus) -> None:
    """A worker refuses a text whose signature cannot be verified; a copy of it is only counted."""
    deliver(["garbage"])
    deliver(["garbage"])


@pytest.mark.parametrize(
    ("happens", "logged"),
    [
        (of_an_attempt, 1),
        (of_what_cannot_be_sent, 1),
        (of_a_row_that_cannot_be_published, 1),
        (of_an_unknown_receiver, 1),
        (of_a_text_that_comes_again, 1),
        (of_a_text_that_is_due, 1),
        (of_a_refused_text, 2),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_delivery_dead_is_sent_once_for_each_dead_delivery(bus: Bus, deaths, caplog, happens, logged: int):
    """Each dead row has a group, and one `delivery_dead` of its message and receiver; no error is logged twice."""
    happens(bus)

    assert dead_rows()
    assert not Delivery.objects.filter(state=State.DEAD, error_group=None).exists()
    assert sorted(told(deaths), key=str) == sorted(dead_rows(), key=str)
    assert all(isinstance(error, Exception) for _, error in deaths)
    errors = [record for record in caplog.records if record.name == "signalbus" and record.levelno >= logging.ERROR]
    assert len(errors) == logged


def test_a_running_row_is_not_reported_dead(bus: Bus, deaths):
    """A delivery that has ended elsewhere meanwhile does not change."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    Delivery.objects.update(state=State.PENDING, due_at=Now())
    (found,) = ledger.take_due(1)
    row = found.load()
    bus.work()
    assert not ledger.bury(row.id, "no", "0a")
    assert ledger.postpone_row(row, "no") is None
    assert (only().state, deaths) == (State.DONE, [])


def test_a_rollback_sends_no_delivery_dead(bus: Bus, deaths):
    """The death of a payload that cannot be sent is reported after the sender's commit."""
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "receiver")
    with rolled_back():
        signal.send_robust(None, lock=object())
    assert deaths == []
    with transaction.atomic():
        signal.send_robust(None, lock=object())
        with rolled_back():
            signal.send_robust(None, lock=object())
        assert deaths == []
    assert told(deaths) == list(dead_rows())
    assert isinstance(deaths[0][1], PayloadError)


def test_another_databases_commit_is_waited_for(bus: Bus, deaths, other: str):
    """If only another database is in a transaction, its commit decides."""
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "receiver")
    with rolled_back(using=other):
        signal.send_robust(None, lock=object())
    with transaction.atomic(using=other):
        signal.send_robust(None, lock=object())
        assert deaths == []
    assert told(deaths) == list(dead_rows())


def test_a_failed_message_of_a_listener_is_not_reported_again(bus: Bus):
    """A receiver of `delivery_dead` that cannot send its own message is called once."""
    alarm = new_signal()
    connect(alarm, lambda **kwargs: None, "receiver")
    calls: list[object] = []

    def raise_alarm(sender, delivery, **kwargs):
        calls.append(delivery)
        alarm.send_robust(None, lock=object())

    delivery_dead.connect(raise_alarm)
    try:
        alarm.send_robust(None, lock=object())
    finally:
        delivery_dead.disconnect(raise_alarm)

    assert len(calls) == 1
    assert len(dead_rows()) == 2

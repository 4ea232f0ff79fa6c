"""Alerts: a condition that needs a person is kept once, with its beginning and its end."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import F

from signalbus import Retry, Signal
from signalbus.ledger import history, operations
from signalbus.models import Alert, Delivery, State, WorkerRecord
from signalbus.receiving.sweeping.history_maintenance import maintain_history

from .bus import Bus, connect, fails, new_signal

if TYPE_CHECKING:
    import pytest

ONCE = Retry(max_attempts=1)


def open_alerts() -> list[tuple[str, str]]:
    """Return kind and key of the alerts that are not over."""
    return sorted(Alert.objects.filter(cleared_at=None).values_list("kind", "key"))


def worker(name: str, digest: str) -> None:
    """Record a worker that has run for an hour."""
    described: dict[str, Any] = {"host": name, "pid": 1, "pool": "solo", "concurrency": 1, "registry_digest": digest}
    history.record_worker(name, described)
    WorkerRecord.objects.update(started_at=F("seen_at") - timedelta(hours=1))


def test_a_group_of_dead_deliveries_is_an_alert_until_none_is_dead(
    bus: Bus, signal: Signal, caplog: pytest.LogCaptureFixture
):
    """It is logged when it begins and when it ends, and once, however many follow."""
    fails(signal, ValueError("bad"), retry=ONCE)
    signal.send(None)
    bus.work()
    with caplog.at_level(logging.INFO, "signalbus"):
        caplog.clear()
        maintain_history()
        signal.send(None)
        bus.work()
        maintain_history()

        dead = Delivery.objects.filter(state=State.DEAD)
        assert open_alerts() == [("dead", dead[0].error_group)]
        assert "1 deliveries to failing are dead: ValueError: bad" in Alert.objects.get().text
        operations.discard([row.pk for row in dead])
        maintain_history()
        maintain_history()

    assert open_alerts() == []
    assert Alert.objects.get().cleared_at is not None
    said = [record.getMessage().partition(":")[0] for record in caplog.records if " alert " in record.getMessage()]
    assert said == ["signalbus alert (dead)", "signalbus alert is over (dead)"]


def test_two_causes_are_two_alerts(bus: Bus):
    """A bug does not hide another."""
    signals = [new_signal(), new_signal()]
    for signal, error in zip(signals, (ValueError("bad"), KeyError("worse")), strict=True):
        fails(signal, error, retry=ONCE)
        signal.send(None)
    bus.work()

    history.judge_alerts()

    assert [kind for kind, _ in open_alerts()] == ["dead", "dead"]


def test_deliveries_that_wait_for_long_are_an_alert_of_their_queue(bus: Bus):
    """As when no worker consumes it."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "mail", queue="email")
    signal.send(None)
    history.judge_alerts()
    assert open_alerts() == []

    Delivery.objects.update(due_at=F("due_at") - timedelta(minutes=6))
    history.judge_alerts()
    assert open_alerts() == [("overdue", "email")]
    bus.work("email")
    history.judge_alerts()
    assert open_alerts() == []


def test_parked_deliveries_are_an_alert(bus: Bus, signal: Signal):
    """Parked deliveries need a worker with newer code."""
    connect(signal, lambda **kwargs: None, "gone")
    signal.send(None)
    signal.disconnect(dispatch_uid="gone")
    bus.work()

    history.judge_alerts()

    assert open_alerts() == [("parked", "")]


def test_workers_that_know_different_receivers_are_an_alert_after_a_rollout(database_url: str):
    """During a roll-out, different receivers are expected."""
    worker("a", "00")
    worker("b", "00")
    history.judge_alerts()
    assert open_alerts() == []
    worker("c", "11")
    WorkerRecord.objects.filter(name="c").update(started_at=F("seen_at"))
    history.judge_alerts()
    assert open_alerts() == []

    WorkerRecord.objects.update(started_at=F("seen_at") - timedelta(hours=1))
    history.judge_alerts()
    assert open_alerts() == [("skew", "")]
    history.forget_worker("c")
    history.judge_alerts()
    assert open_alerts() == []

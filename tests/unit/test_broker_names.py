"""Spans name the broker without asking it."""

from __future__ import annotations

import pytest
from celery import Celery

from signalbus import celery
from signalbus.telemetry import broker_names
from signalbus.telemetry.broker_names import BrokerName, broker_name


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:secret@cache:6380/1", BrokerName("redis", "cache", 6380)),
        ("rediss://cache:6380/1", BrokerName("redis", "cache", 6380)),
        ("redis+socket:///run/valkey.sock", BrokerName("redis", "", None)),
        ("amqp://u:secret@rabbit:5673//", BrokerName("rabbitmq", "rabbit", 5673)),
    ],
)
def test_the_broker_is_named(url: str, expected: BrokerName, monkeypatch: pytest.MonkeyPatch):
    """Its kind as the conventions call it, its host and port, and no password."""
    app = Celery(broker=url, set_as_current=False)
    monkeypatch.setattr(celery, "get_app", lambda: app)
    broker_names._forget()
    try:
        found = broker_name()
    finally:
        broker_names._forget()

    assert found == expected

"""``manage.py signalbus check`` answers a monitoring system with one line and an exit code."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from unittest.mock import patch

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db.models import F

from signalbus import Retry
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery
from tests.servers import broker

from .bus import Bus, connect, fails, new_signal


def check(*options: str) -> tuple[int, str]:
    """Run the command, and return its exit code and what it prints."""
    out = io.StringIO()
    try:
        call_command("signalbus", "check", *options, stdout=out)
    except SystemExit as error:
        return int(str(error.code)), out.getvalue()
    return 0, out.getvalue()


def test_a_bus_without_failures_is_ok(bus: Bus):
    """The values stand behind a bar, for graphs."""
    code, shown = check("--max-oldest", "5m", "--max-dead", "0", "--max-parked", "0")

    assert (code, shown) == (0, "SIGNALBUS OK - no limit is exceeded | dead=0 parked=0 waiting=0 oldest_seconds=0\n")


def test_dead_deliveries_over_the_limit_are_critical(bus: Bus):
    """Without the option nothing is judged."""
    signal = new_signal(durable=True)
    fails(signal, ValueError("x"), retry=Retry(max_attempts=1))
    signal.send(None)
    bus.work()

    assert check()[0] == 0
    assert check("--max-dead", "1")[0] == 0
    assert check("--max-dead", "0") == (
        2,
        "SIGNALBUS CRITICAL - 1 dead, 0 allowed | dead=1 parked=0 waiting=0 oldest_seconds=0\n",
    )


def test_a_queue_without_a_worker_is_critical(bus: Bus):
    """A message waits, and the broker knows of no worker."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "there")
    signal.send(None)

    code, shown = check()

    assert code == 2
    assert "signalbus: 1 messages wait, and no worker consumes it" in shown
    assert "waiting=1" in shown


def test_a_delivery_that_waits_for_too_long_is_critical(bus: Bus):
    """The age of the oldest one is judged, and is a value."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "there")
    signal.send(None)
    Delivery.objects.update(created_at=F("created_at") - timedelta(minutes=10))

    code, shown = check("--max-oldest", "5m", "--json")

    found = json.loads(shown)
    assert code == 2
    assert found["level"] == "CRITICAL"
    assert any("the oldest waits for 6" in each for each in found["findings"])
    assert 600 <= found["values"]["oldest_seconds"] < 660


def test_too_few_workers_are_critical(bus: Bus):
    """The broker names the workers of each queue."""
    code, shown = check("--min-workers", "2")

    assert code == 2
    assert "signalbus: 0 of 2 workers" in shown


def test_an_outage_is_reported_as_unknown(bus: Bus):
    """An outage of the broker or the database has an exit code of its own."""
    with broker("redis://127.0.0.1:1/0"):
        code, shown = check()
    assert code == 3
    assert "the broker cannot be asked" in shown
    with patch.object(ledger, "failures", side_effect=OperationalError("server\nis away")):
        assert check() == (3, "SIGNALBUS UNKNOWN - the ledger cannot be read: server\\nis away | \n")


def test_bad_input_an_invalid_age_is_an_error(bus: Bus):
    """The option is named."""
    with pytest.raises(CommandError, match="--max-oldest is 'soon'"):
        check("--max-oldest", "soon")

"""Times of the ledger under each setting of Django that changes how a database's columns are read."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.test import override_settings

from signalbus import Retry
from signalbus.models import Delivery, StoredMessage
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.services.queries.queues import age_of

from .bus import Bus, connect, fails, new_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = timedelta(minutes=1)


@contextmanager
def time_zones(*, use_tz: bool, of_database: str | None) -> Iterator[None]:
    """Run with `USE_TZ`, and with `TIME_ZONE` in `DATABASES`; the host's own time zone is not UTC."""
    connection.settings_dict["TIME_ZONE"] = of_database
    with override_settings(USE_TZ=use_tz, TIME_ZONE="America/New_York"):
        try:
            yield
        finally:
            connection.settings_dict["TIME_ZONE"] = None


@pytest.fixture(params=[(True, None), (True, "Asia/Tokyo"), (False, None)], ids=str, autouse=True)
def zones(request: pytest.FixtureRequest, database_url: str) -> Iterator[None]:
    """Each combination that Django allows."""
    use_tz, of_database = request.param
    with time_zones(use_tz=use_tz, of_database=of_database):
        yield


def now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)


def asked(*words: str) -> Any:
    """Return the command's JSON output."""
    out = StringIO()
    call_command("signalbus", *words, "--json", stdout=out, stderr=StringIO())
    return json.loads(out.getvalue())


def test_a_scheduled_message_is_due_in_time(bus: Bus):
    """An aware time is compared with the database's clock, whatever zones are set."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")

    signal.send_later(now() + timedelta(hours=1), None)
    assert sweep() == 0
    signal.send_later(now() - MINUTE, None)
    assert sweep() == 1


def test_times_are_shown_in_utc(bus: Bus):
    """`failed` says when a delivery failed, in UTC and with the offset in JSON."""
    signal = new_signal(durable=True)
    fails(signal, ValueError("late"), retry=Retry(max_attempts=1))
    signal.send(None)
    bus.work()

    (row,) = asked("failed")
    out = StringIO()
    call_command("signalbus", "failed", stdout=out)

    assert abs(datetime.fromisoformat(row["failed_at"]) - now()) < MINUTE
    assert any(f"{now() - back:%Y-%m-%d %H:%M}" in out.getvalue() for back in (timedelta(), MINUTE))


def test_an_audit_asks_for_the_time_that_its_option_names(bus: Bus):
    """`--since 10m` finds a message that was sent a minute ago, and none that was sent an hour ago."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    bus.work()

    def sent() -> int:
        found = asked("audit", "--since", "10m", "--wait", "0.1")
        assert abs(datetime.fromisoformat(found["since"]) - (now() - 10 * MINUTE)) < MINUTE
        return sum(row["sent"] for row in found["rows"])

    assert sent() == 1
    StoredMessage.objects.update(created_at=F("created_at") - timedelta(hours=1))
    Delivery.objects.update(created_at=F("created_at") - timedelta(hours=1))
    assert sent() == 0


def test_the_age_of_a_waiting_message_is_right(bus: Bus):
    """`status` calls a queue unattended by the age of its oldest message."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)

    assert timedelta() <= age_of(Delivery.objects.get().created_at) + MINUTE < 2 * MINUTE

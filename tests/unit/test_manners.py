"""What a process learns of its receivers' time."""

from __future__ import annotations

import time

import pytest
from django.test import override_settings

from signalbus.receiving.running import receiver_runtimes as module
from signalbus.receiving.running.receiver_runtimes import Manners


@pytest.fixture
def pace() -> Manners:
    """One that has seen nothing."""
    return Manners()


def test_who_has_not_run_yet_runs_alone(pace: Manners):
    """Whether it is brief is not known."""
    assert not pace.may_share("new")


def test_who_is_brief_may_share(pace: Manners):
    """After one run its time is known."""
    pace.learn("brief", 0.002)

    assert pace.may_share("brief")
    assert pace.expected("brief") == 0.002


def test_quick_to_fear_and_slow_to_trust(pace: Manners):
    """One slow run ends the company; many brief ones are needed to begin it again."""
    pace.learn("turned slow", 0.002)
    pace.learn("turned slow", 0.2)
    assert not pace.may_share("turned slow")

    runs = 0
    while not pace.may_share("turned slow"):
        pace.learn("turned slow", 0.002)
        runs += 1
    assert runs > 5


def test_who_waited_for_a_lock_stays_alone_for_ten_minutes(pace: Manners, monkeypatch):
    """And may then try again."""
    pace.learn("hot", 0.002)
    pace.keep_alone("hot")
    assert not pace.may_share("hot")

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + module.ALONE_SECONDS + 1)
    assert pace.may_share("hot")


def test_a_long_transaction_is_warned_of_once_an_hour(pace: Manners, monkeypatch, caplog):
    """With the cure; each receiver for itself."""
    pace.warn("quick", 4.9)
    pace.warn("slow", 6.0)
    pace.warn("slow", 7.0)
    pace.warn("other", 8.0)
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == ["slow", "other"]
    assert "atomic=False" in caplog.text

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + module.WARN_EVERY + 1)
    pace.warn("slow", 9.0)
    assert len(caplog.records) == 3


def test_slow_seconds_says_what_is_long(pace: Manners, caplog):
    """SLOW_SECONDS moves the limit, and 0 takes it away."""
    with override_settings(SIGNALBUS={"SLOW_SECONDS": 1.0}):
        pace.warn("slow", 2.0)
    with override_settings(SIGNALBUS={"SLOW_SECONDS": 0}):
        pace.warn("slower", 3600.0)

    assert len(caplog.records) == 1

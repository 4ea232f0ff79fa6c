"""A process learns the run times of its receivers, and who may run in a group commit."""

from __future__ import annotations

import time

import pytest
from django.test import override_settings

from signalbus.receiving.process import receiver_runtimes as module
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes


@pytest.fixture
def runtimes() -> ReceiverRuntimes:
    """A runtime estimate without any observation."""
    return ReceiverRuntimes()


def test_a_receiver_that_has_not_run_yet_runs_alone(runtimes: ReceiverRuntimes):
    """The run time of the receiver is not known."""
    assert not runtimes.may_share("new")


def test_a_brief_receiver_may_share_a_commit(runtimes: ReceiverRuntimes):
    """The run time of the receiver is known after one run."""
    runtimes.learn("brief", 0.002)

    assert runtimes.may_share("brief")
    assert runtimes.expected("brief") == 0.002


def test_one_slow_run_ends_sharing_and_many_brief_ones_restore_it(runtimes: ReceiverRuntimes):
    """The estimate rises quickly and falls slowly."""
    runtimes.learn("turned slow", 0.002)
    runtimes.learn("turned slow", 0.2)
    assert not runtimes.may_share("turned slow")

    runs = 0
    while not runtimes.may_share("turned slow"):
        runtimes.learn("turned slow", 0.002)
        runs += 1
    assert runs > 5


def test_a_receiver_that_waited_for_a_lock_runs_alone_for_ten_minutes(runtimes: ReceiverRuntimes, monkeypatch):
    """After that it may share again."""
    runtimes.learn("hot", 0.002)
    runtimes.keep_alone("hot")
    assert not runtimes.may_share("hot")

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + module.ALONE_SECONDS + 1)
    assert runtimes.may_share("hot")


def test_a_long_transaction_is_warned_of_once_an_hour(runtimes: ReceiverRuntimes, monkeypatch, caplog):
    """The warning names the remedy, and counts for each receiver."""
    runtimes.warn("quick", 4.9)
    runtimes.warn("slow", 6.0)
    runtimes.warn("slow", 7.0)
    runtimes.warn("other", 8.0)
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == ["slow", "other"]
    assert "atomic=False" in caplog.text

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + module.WARN_EVERY + 1)
    runtimes.warn("slow", 9.0)
    assert len(caplog.records) == 3


def test_slow_seconds_is_the_limit_of_the_warning(runtimes: ReceiverRuntimes, caplog):
    """0 turns the warning off."""
    with override_settings(SIGNALBUS={"SLOW_SECONDS": 1.0}):
        runtimes.warn("slow", 2.0)
    with override_settings(SIGNALBUS={"SLOW_SECONDS": 0}):
        runtimes.warn("slower", 3600.0)

    assert len(caplog.records) == 1

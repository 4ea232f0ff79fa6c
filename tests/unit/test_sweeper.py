"""The sweeper's thread beside Celery's forks."""

from __future__ import annotations

import os
import threading

import pytest

from signalbus import ledger
from signalbus.receiving import sweeper


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_no_child_is_forked_in_the_middle_of_a_sweep(monkeypatch: pytest.MonkeyPatch):
    """It would inherit a lock that the sweep holds, and wait for it for ever."""
    begun, may_end, held = threading.Event(), threading.Event(), threading.Lock()
    forking = True

    def sweep_that_holds_a_lock():
        with held:
            begun.set()
            assert may_end.wait(10)

    def at_fork():
        if forking:
            may_end.set()

    monkeypatch.setattr(sweeper, "sweep", sweep_that_holds_a_lock)
    monkeypatch.setattr(ledger, "unpark", lambda: 0)
    monkeypatch.setattr(sweeper, "_close_connections", lambda: None)
    thread = sweeper.Sweeper(3600)
    os.register_at_fork(before=at_fork)  # called before the sweeper's own, which was there first
    thread.start()
    assert begun.wait(10)

    child = os.fork()
    if child == 0:
        os._exit(0 if held.acquire(blocking=False) else 1)
    _, status = os.waitpid(child, 0)

    forking = False
    thread.stop()
    thread.join(10)
    assert os.waitstatus_to_exitcode(status) == 0

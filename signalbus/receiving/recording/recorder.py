"""The recorder of a process of a worker: record outcomes over time and long runs, from a thread of its own.

The thread starts with the first delivery of its process, and sleeps while there is nothing to record. None of it is on
the way of a delivery. What it has not recorded when its process is killed is lost: the statistics of ten seconds. The
accounts of deliveries come from the ledger's rows.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError

from signalbus.events import listen
from signalbus.ledger import history as ledger
from signalbus.receiving.process.current_runs import current_runs
from signalbus.receiving.process.database_connections import close_connections, use_no_pools
from signalbus.receiving.process.fork_guard import ForkGuard
from signalbus.receiving.process.outages import OutageLog
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.recording.outcome_counts import outcome_counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.events import Event
    from signalbus.receiving.recording.worker_presence import WorkerPresence

logger: logging.Logger = logging.getLogger("signalbus")

TICK = 0.5  # seconds between two looks while something runs
LONG_RUN = 1.0  # seconds after which a run is recorded
SEE_RUNS = 5.0  # seconds between two records of a run that goes on
COUNT_SECONDS = 8.0  # seconds between two records of outcomes: a figure is right within ten
MOST_LOST = 20  # processes whose runs are deleted at once
STOP_SECONDS = 3.0  # that the end of a process waits for the last record

_recording: ForkGuard = ForkGuard()
_main_pid: int | None = None  # of the worker's main process; None where no worker runs
_of_child: Recorder | None = None
_lost: deque[str] = deque(maxlen=1000)  # processes whose attempts were settled here


class Recorder:
    """The records of a process, and the thread that makes them.

    Args:
        presence: records the worker as well, in the main process of a worker without a sweeper.
    """

    def __init__(self, presence: WorkerPresence | None = None) -> None:
        self._presence = presence
        self._name = worker_name()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._runs: frozenset[tuple[object, int]] = frozenset()  # that are recorded
        self._runs_at = self._counts_at = 0.0  # when to record them next
        self._runs_pause = 0.0  # until when no run is recorded, after an error
        self._outages = OutageLog("signalbus could not record outcomes or runs, and will try again")

    def start(self) -> None:
        """Record from now on; without anything to record, no thread is started."""
        if self._presence is None:
            _call_when_something_begins(self._wake)
        else:
            self._wake()

    def stop(self) -> None:
        """Record what is left, and stop."""
        _call_when_something_begins(None)
        self._stopping.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout=STOP_SECONDS)

    def _wake(self) -> None:
        """End the thread's sleep; start it if there is none."""
        _call_when_something_begins(None)
        self._woken.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="signalbus-recorder", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        """Record until stopped, and then once more."""
        use_no_pools()
        wait = LONG_RUN
        while not self._stopping.wait(wait):
            self._guarded(self._record)
            wait = self._sleep()
        self._guarded(self._finish)

    def _sleep(self) -> float:
        """Sleep until something begins or is due; return the seconds until there may be something to record."""
        if self._runs or current_runs.any():
            return TICK
        self._woken.clear()
        _call_when_something_begins(self._wake)
        has_begun = current_runs.any() or bool(_lost) or self._stopping.is_set()  # before the line above
        if has_begun or self._woken.wait(self._seconds_left()):
            return LONG_RUN  # nothing that has begun is due earlier
        return 0.0

    def _seconds_left(self) -> float | None:
        """Return the seconds until something is due that has begun already; None if nothing has."""
        left = [] if self._presence is None else [self._presence.seconds_left()]
        if outcome_counts.any():
            left.append(max(0.0, self._counts_at - time.monotonic()))
        return min(left, default=None)

    def _guarded(self, record: Any) -> None:
        """Record, log an error, and leave no connection open: a child may be forked, and few records are made."""
        with _recording:
            recorded = True
            try:
                recorded = record()
                if recorded:
                    self._outages.succeeded()
            except DatabaseError as error:
                if not ledger.waits_for_receiver(error):
                    self._outages.failed(error, expected=True)
                self._runs_pause = time.monotonic() + SEE_RUNS
            except Exception as error:  # noqa: BLE001 - the process goes on without it
                self._outages.failed(error, expected=False)
                self._runs_pause = time.monotonic() + SEE_RUNS
            finally:
                if recorded:
                    close_connections()

    def _record(self) -> bool:
        """Record what is due; return whether anything was."""
        now = time.monotonic()
        recorded = self._forget_lost() | self._record_runs(now)
        if now >= self._counts_at:
            self._counts_at = now + COUNT_SECONDS
            recorded |= self._record_counts()
        if self._presence is not None:
            recorded |= self._presence.record()
        return recorded

    def _finish(self) -> bool:
        if self._runs:
            ledger.record_running(self._name, [])
        self._record_counts()
        if self._presence is not None:
            self._presence.end()
        return True

    @staticmethod
    def _forget_lost() -> bool:
        """Delete what lost processes ran."""
        workers: set[str] = set()
        while _lost and len(workers) < MOST_LOST:
            workers.add(_lost.popleft())
        for worker in workers:
            ledger.record_running(worker, [])
        return bool(workers)

    def _record_runs(self, now: float) -> bool:
        runs = current_runs.longer_than(LONG_RUN)
        found = frozenset((delivery.id, delivery.attempt) for delivery, _ in runs)
        is_due = found != self._runs or (found and now >= self._runs_at)
        if not is_due or now < self._runs_pause:
            return False
        ledger.record_running(self._name, runs)
        self._runs, self._runs_at = found, now + SEE_RUNS
        return True

    @staticmethod
    def _record_counts() -> bool:
        taken = outcome_counts.take()
        if not taken:
            return False
        try:
            ledger.add_counts(taken, worker=worker_name())
        except BaseException:
            outcome_counts.put_back(taken)
            raise
        return True


def note_lost(event: Event) -> None:
    """Note which process was lost with an attempt that this one settles; a listener of "failed" and "dead"."""
    if event.worker and event.worker != worker_name():
        _lost.append(event.worker)
        if current_runs.wake is not None:
            current_runs.wake()


def prepare() -> None:
    """Count outcomes from now on, in this process and in those that it forks; called before a worker's pool starts."""
    global _main_pid  # noqa: PLW0603 - which process this is
    _main_pid = os.getpid()
    listen("done", "failed", "dead", "skipped")(outcome_counts.count)
    listen("failed", "dead")(note_lost)


def start_in_child(**_kwargs: object) -> None:
    """Let a child of the pool record; Celery calls it in a pool without children as well."""
    global _of_child  # noqa: PLW0603 - of this process
    if _main_pid is not None and os.getpid() != _main_pid:
        _lost.clear()
        _of_child = Recorder()
        _of_child.start()


def stop_in_child(**_kwargs: object) -> None:
    """Record what is left before a child of the pool ends."""
    if _of_child is not None:
        _of_child.stop()


def _call_when_something_begins(wake: Callable[[], object] | None) -> None:
    current_runs.wake = outcome_counts.wake = wake

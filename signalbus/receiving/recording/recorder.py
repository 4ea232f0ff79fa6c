"""The recorder thread, one in each process of a worker: record outcomes over time, long runs and the worker itself.

None of it is on the way of a delivery. What it has not recorded when its process is killed is lost: the statistics of
ten seconds. The accounts of deliveries come from the ledger's rows.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, connections

from signalbus.events import listen
from signalbus.ledger import history as ledger
from signalbus.ledger.base.deliveries import using
from signalbus.receiving.process.current_runs import current_runs
from signalbus.receiving.process.database_connections import close_connections, use_no_pools
from signalbus.receiving.process.outages import OutageLog
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.recording.outcome_counts import outcome_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signalbus.events import Event

logger: logging.Logger = logging.getLogger("signalbus")

TICK = 0.5  # seconds between two looks at what runs
IDLE_TICK = 1.5  # seconds between two looks while nothing runs: a run is told of within three
LONG_RUN = 1.0  # seconds after which a run is recorded
SEE_RUNS = 5.0  # seconds between two records of a run that goes on
COUNT_SECONDS = 10.0  # seconds between two records of outcomes
SEE_WORKER = 10.0  # seconds between two records that the worker is alive
MOST_LOST = 20  # processes whose runs are deleted at once
FORK_SECONDS = 5.0  # that a fork waits for a record under way
STOP_SECONDS = 3.0  # that the end of a process waits for the last record

# Locked during a record, so that no child is forked in the midst of it: see the sweeper.
_recording = threading.Lock()
_forking = threading.local()
_main_pid: int | None = None  # of the worker's main process; None where no worker runs
_of_child: Recorder | None = None
_lost: deque[str] = deque(maxlen=1000)  # processes whose attempts were settled here


class Recorder(threading.Thread):
    """The thread that records, in a worker's main process or in a child of its pool.

    Args:
        worker: what describes the worker, in its main process; None in a child.
    """

    def __init__(self, worker: Mapping[str, Any] | None = None) -> None:
        super().__init__(name="signalbus-recorder", daemon=True)
        self._worker = worker
        self._name = worker_name()
        self._stopping = threading.Event()
        self._runs: frozenset[tuple[object, int]] = frozenset()  # that are recorded
        self._runs_at = self._counts_at = self._seen_at = 0.0  # when to record them next
        self._runs_pause = 0.0  # until when no run is recorded, after an error
        self._is_recorded = False  # the worker
        self._outages = OutageLog("signalbus could not record outcomes, runs or its worker, and will try again")

    def run(self) -> None:
        """Record until stopped, and then once more."""
        use_no_pools()
        self._counts_at = time.monotonic() + COUNT_SECONDS
        while not self._stopping.wait(TICK if self._runs or current_runs.any() else IDLE_TICK):
            self._guarded(self._record)
        self._guarded(self._finish)

    def stop(self) -> None:
        """Record what is left, and stop."""
        self._stopping.set()
        self.join(timeout=STOP_SECONDS)

    def _guarded(self, record: Any) -> None:
        """Record, log an error, and leave no connection open: a child may be forked, and few records are made."""
        with _recording:
            recorded = True
            try:
                recorded = record()
                if recorded:
                    self._outages.succeeded()
            except DatabaseError as error:
                if not _waits_for_receiver(error):
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
        if self._worker is not None and now >= self._seen_at:
            self._seen_at = now + SEE_WORKER
            if not (self._is_recorded and ledger.see_worker(self._name)):
                ledger.record_worker(self._name, self._worker)
                self._is_recorded = True
            recorded = True
        return recorded

    def _finish(self) -> bool:
        if self._runs:
            ledger.record_running(self._name, [])
        self._record_counts()
        if self._worker is not None:
            ledger.forget_worker(self._name)
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


def _waits_for_receiver(error: DatabaseError) -> bool:
    """Whether a record has to wait for a receiver that writes: on SQLite there is one writer at a time."""
    return connections[using()].vendor == "sqlite" and "locked" in str(error)


def note_lost(event: Event) -> None:
    """Note which process was lost with an attempt that this one settles; a listener of "failed" and "dead"."""
    if event.worker and event.worker != worker_name():
        _lost.append(event.worker)


def prepare() -> None:
    """Count outcomes from now on, in this process and in those that it forks; called before a worker's pool starts."""
    global _main_pid  # noqa: PLW0603 - which process this is
    _main_pid = os.getpid()
    listen("done", "failed", "dead", "skipped")(outcome_counts.count)
    listen("failed", "dead")(note_lost)
    _stop_records_while_forking()


def start_in_child(**_kwargs: object) -> None:
    """Start a recorder in a child of the pool; Celery calls it in a pool without children as well."""
    global _of_child  # noqa: PLW0603 - of this process
    if _main_pid is not None and os.getpid() != _main_pid:
        _of_child = Recorder()
        _of_child.start()


def stop_in_child(**_kwargs: object) -> None:
    """Record what is left before a child of the pool ends."""
    if _of_child is not None:
        _of_child.stop()


def _before_fork() -> None:
    _forking.acquired = _recording.acquire(timeout=FORK_SECONDS)


def _after_fork_in_parent() -> None:
    if _forking.acquired:
        _recording.release()


def _after_fork_in_child() -> None:
    global _recording  # noqa: PLW0603 - the thread that has locked it is not in the child
    _recording = threading.Lock()


@cache
def _stop_records_while_forking() -> None:
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

"""Sweep from one thread in the main process of each worker: publish what is due, settle lost processes, purge.

`receiving/worker/bootstrap` starts the thread. `due_publication` publishes due retries, and unpublished, parked and
lost deliveries; `ledger/sweeps` decides which (decisions 0029 and 0041). The thread also settles the attempts of lost
processes (`settling/lost_processes`), and purges closed messages.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import DatabaseError, connections

from signalbus import conf
from signalbus.broker import publisher
from signalbus.ledger import sweeps as ledger
from signalbus.receiving.pausing.releasing import Release
from signalbus.receiving.process.database_connections import close_connections, use_no_pools
from signalbus.receiving.process.fork_guard import ForkGuard
from signalbus.receiving.process.outages import OutageLog
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.running.gates import is_held
from signalbus.receiving.settling.lost_processes import losses
from signalbus.receiving.sweeping.alert_notices import AlertNotices
from signalbus.receiving.sweeping.bulk_progress import BulkProgress
from signalbus.receiving.sweeping.due_publication import BREATH, lost_tally, mark, publish_some
from signalbus.receiving.sweeping.history_maintenance import maintain_history
from signalbus.receiving.sweeping.idleness import idleness
from signalbus.receiving.sweeping.stale_code import StaleCode

if TYPE_CHECKING:
    from signalbus.receiving.recording.worker_presence import WorkerPresence

logger: logging.Logger = logging.getLogger("signalbus")

# Between two looks for what needs a person, and for what has been kept for long enough; one sweeper's turn.
PURGE_SECONDS = 30.0
PURGE_BATCH = 200  # deliveries of one transaction, so that it is short on databases with one writer at a time
PURGE_PAUSE = 0.1  # seconds between two of them
KEEP_CONNECTED = 5.0  # seconds between two sweeps for which a connection is kept: to make one costs more than a sweep


class Purge:
    """Purge closed messages, a batch after each sweep, while this sweeper has the lease to do so."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._until = 0.0
        self._notices = AlertNotices()

    def step(self) -> bool:
        """Delete a batch, if this sweeper has the lease.

        Returns:
            Whether there may be more to delete.

        Raises:
            DatabaseError: the ledger could not be reached.
        """
        now, keep = time.monotonic(), conf.get()
        if now >= self._next_at:
            self._next_at = now + PURGE_SECONDS
            if ledger.acquire_purge_lease(PURGE_SECONDS):
                self._until = self._next_at
                ledger.purge_keys(keep.KEEP_SECONDS)
                ledger.recall()
                maintain_history()
                self._notices.send()
        self._notices.keep_sent()
        if now < self._until:
            purged = ledger.purge_some(keep.KEEP_SECONDS, ages=keep.ages(), batch=PURGE_BATCH)
            self._until = self._until if purged else 0.0
        return now < self._until


_sweeping: ForkGuard = ForkGuard()


class Sweeper(threading.Thread):
    """The thread of a worker's main process that sweeps.

    Args:
        interval: seconds between two looks.
        slots: processes, or threads, of this worker, of which one receiver's retries get half.
        presence: records that the worker is alive.
    """

    def __init__(self, interval: float, slots: int = 1, presence: WorkerPresence | None = None) -> None:
        super().__init__(name="signalbus-sweeper", daemon=True)
        self._interval = interval
        self._presence = presence
        self._share = ledger.Share(worker_name(), max(1, slots // 2))
        self._retries_wait = False  # for their share of this worker, or for the next batch
        self._lost_wait = False  # for the next batch: the last one was full, and lost deliveries were looked for
        self._mark_at = 0.0
        self._is_stopping = False
        self._woken = threading.Event()  # there is something to do at once
        self._unparked = False
        self._release = Release()
        self._operations = BulkProgress()
        self._purge = Purge()
        self._stale_code = StaleCode() if settings.DEBUG else None
        self._outages = OutageLog("signalbus could not sweep, and will try again")

    def run(self) -> None:
        """Sweep until stopped; log errors, and try again."""
        use_no_pools()
        for connection in connections.all():
            connection.inc_thread_sharing()  # the forking thread closes them
        _sweeping.connections = connections.all()
        pause = BREATH
        losses.open(self._woken.set)
        try:
            while self._wait(pause):
                with _sweeping:
                    pause = self._sweep()
                    if self._stale_code is not None:
                        self._stale_code.tell()
                    if pause > KEEP_CONNECTED or not connections[ledger.using()].settings_dict["AUTOCOMMIT"]:
                        close_connections()  # without autocommit, what was read would stand in a transaction for ever
        finally:
            losses.close()
            self._end_presence()
            close_connections()

    def _wait(self, pause: float) -> bool:
        """Wait for so many seconds, or until there is work to do; return False if the sweeper is to stop.

        While retries wait for their share of this worker, it ends as soon as the worker has nothing else to do.
        """
        if self._retries_wait:
            breath = min(pause, BREATH)
            time.sleep(breath)
            pause -= breath
        else:
            idleness.ignore()
        self._woken.wait(pause)
        self._woken.clear()
        # First: what is published in the next sweep may have run before it is over.
        idleness.notice(self._woken.set)
        return not self._is_stopping

    def _sweep(self) -> float:
        """Publish a batch; return the seconds until the next one."""
        follows, self._retries_wait = self._retries_wait, False
        if self._presence is not None:
            self._presence.record()
        try:
            pause = self._make_due()
            if follows or not self._is_idle():
                lost = self._mark() or not follows or self._lost_wait
                published, more = 0, None
                if not lost or ledger.anything_due():
                    published, more = publish_some(self._share, lost=lost)
                self._retries_wait = more is not None
                self._lost_wait = lost and more == BREATH
                if not published:  # those on their way are not what runs here now
                    idleness.ignore()
                if more == BREATH:
                    return BREATH
                lost_tally.tell()
                pause = min(pause, more or pause)
            if self._purge.step():
                return min(PURGE_PAUSE, pause)
        except (DatabaseError, publisher.PublishError) as error:
            self._outages.failed(error, expected=True)
        except Exception as error:  # noqa: BLE001 - without its sweeper a worker would look well, and lose what failed
            self._outages.failed(error, expected=False)
        else:
            self._outages.succeeded()
            return pause
        close_connections()  # whatever is wrong with them
        return self._interval

    def _make_due(self) -> float:
        """Make due what waited for something else than time; return the seconds until there may be more."""
        again = losses.settle(is_held)
        if not self._unparked:
            ledger.unpark()
            self._unparked = True
        more = (again, self._release.step(), self._operations.step())
        return min(self._interval if wait is None else max(BREATH, wait) for wait in more)

    def _is_idle(self) -> bool:
        """Return whether there is nothing to publish or to mark; the same statement looks for pauses."""
        began = time.monotonic()
        look = ledger.look()
        if not look.is_anything_paused:
            self._release.note_no_pauses(began)
        return look.is_idle

    def _mark(self) -> bool:
        """Send markers that are due, but not at each of the quick sweeps while retries wait.

        Returns:
            Whether it was time for that.
        """
        now = time.monotonic()
        if now < self._mark_at:
            return False
        self._mark_at = now + self._interval / 2
        mark()
        return True

    def stop(self) -> None:
        """Stop after the batch under way."""
        self._is_stopping = True
        self._woken.set()

    def _end_presence(self) -> None:
        if self._presence is None:
            return
        try:
            self._presence.end()
        except DatabaseError as error:
            logger.warning("signalbus could not delete the record of its worker: %r", error)

"""Publish due retries, unpublished, parked and lost deliveries, from one thread in the main process of each worker.

`receiving/worker/bootstrap` starts the thread, and ``manage.py signalbus sweep`` calls `sweep` once.
`ledger/sweeps/due` decides which rows are due or lost (decision 0029), `ledger/sweeps/retry_admission` how many
retries (decision 0041). In the same thread the attempts of lost processes are settled, markers are sent, and closed
messages are purged.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import cache
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import DatabaseError, DataError, connections

from signalbus import conf
from signalbus.broker import publisher
from signalbus.events import Event, is_heard
from signalbus.exceptions import SignalBusError, UnknownKey, UnknownVersion
from signalbus.ledger import operations
from signalbus.ledger import sweeps as ledger
from signalbus.models import State
from signalbus.receiving.pausing.releasing import Release, release_all
from signalbus.receiving.process.database_connections import close_connection, close_connections, use_no_pools
from signalbus.receiving.process.outages import OutageLog
from signalbus.receiving.process.worker_events import tell, worker_name
from signalbus.receiving.running.gates import is_held
from signalbus.receiving.settling.lost_processes import losses, settle_overdue
from signalbus.receiving.sweeping.idleness import idleness
from signalbus.receiving.sweeping.stale_code import StaleCode
from signalbus.wire.marker import Marker, marker_from
from signalbus.wire.message import from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.events import Kind

logger: logging.Logger = logging.getLogger("signalbus")

BATCH = 100  # rows taken at once
RETURN_SECONDS = 5.0  # until what could not be published is due again
SLOW_MS = 50  # of a run that failed: its retry keeps no other waiting
RETRIES_TOGETHER = 10  # retries in one Celery message, so that no process has all of them
ADMIT_SECONDS = 0.05  # between two sweeps while retries wait for their receiver's share of this worker
ADMIT_PAUSES = 2  # times as long as such a sweep took is waited until the next one
BREATH = 0.01  # seconds between two batches, in which a child may be forked
PURGE_SECONDS = 60.0  # between two looks for what has been kept for long enough; one sweeper's turn
KEEP_COUNTS = 30 * 86400.0  # seconds
PURGE_BATCH = 200  # deliveries of one transaction, so that it is short on databases with one writer at a time
PURGE_PAUSE = 0.1  # seconds between two of them
KEEP_CONNECTED = 5.0  # seconds between two sweeps for which a connection is kept: to make one costs more than a sweep
FORK_SECONDS = 5.0  # that a fork waits for the batch under way: longer than one takes while all is well


class LostTally:
    """The number of lost deliveries that were published again since the last line of the log about them."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, rows: Iterable[ledger.Publishable]) -> None:
        """Count those of some published rows that were published before, and were lost."""
        self._count += sum(row.lost for row in rows)

    def tell(self) -> None:
        """Log the number in one line, if there were any."""
        count, self._count = self._count, 0
        if count:
            logger.warning(
                "signalbus published %d lost deliveries again: no queue held them any more, or their worker was lost",
                count,
            )


_lost = LostTally()  # of this process's sweeper


def sweep() -> int:
    """Publish all deliveries that are due now.

    Returns:
        The number of published deliveries.

    Raises:
        PublishError: the broker did not take some; all that are not published are due again soon.
        DatabaseError: the ledger could not be read.
    """
    release_all()
    try:
        published, more = _sweep_some() if ledger.anything_due() else (0, None)
        while more is not None:
            count, more = _sweep_some()
            published += count
    finally:
        _lost.tell()
    return published


def _sweep_some(share: ledger.Share | None = None, *, lost: bool = True) -> tuple[int, float | None]:
    """Publish a batch of due deliveries, and of each receiver's retries its share.

    Args:
        share: the limit on one receiver's retries; None for no limit.
        lost: also publish deliveries that were published, and are lost.

    Returns:
        The number of published deliveries, and the seconds until the next batch; None if no more are due now.
    """
    began = time.monotonic()
    rows, waiting = ledger.take_admitted(BATCH, share, lost=lost)
    due = [(row, text) for row in rows if (text := _text(row)) is not None]
    published = _publish(due)
    _lost.add(row for row, _ in due)
    if len(rows) == BATCH:
        return published, BREATH
    return published, max(ADMIT_SECONDS, ADMIT_PAUSES * (time.monotonic() - began)) if waiting else None


def _text(row: ledger.Publishable) -> str | None:
    """Return the text to publish for a row; None if there is none. One bad row must not stop the others."""
    try:
        body = conf.signer().verify(row.text) if row.sealed else row.text
        if marker_from(body) is not None:  # parked by a worker of 0.1, which could not read it
            operations.discard([row.id])
            return None
        message = from_body(body)
        if not row.signal:  # opened at last: by now this worker holds the key, or reads the version
            ledger.open_parked(row.load(), message)
            return None
        if row.overdue and settle_overdue(row.load(), message):
            return None
        recipients = [row.receiver] if row.receiver else None
        return publisher.sign(to_body(message.for_recipients(recipients, recorded=True)))
    except (UnknownKey, UnknownVersion) as error:
        state = ledger.postpone_row(row.load(), str(error))
        if state == State.DEAD:
            logger.error("signalbus gave up a parked text, delivery %s: %s", row.id, error)  # noqa: TRY400 - not a bug
            _tell("dead", row, error)
        elif state is not None:
            _tell("parked", row, error)
    except (SignalBusError, ValueError, DataError) as error:
        logger.error("signalbus cannot publish delivery %s: %s", row.id, error)  # noqa: TRY400 - the row is wrong
        if ledger.bury(row.id, f"{type(error).__name__}: {error}"):
            _tell("dead", row, error)
    return None


def _tell(kind: Kind, row: ledger.Publishable, error: Exception | None = None) -> None:
    if is_heard(kind):
        tell(Event(kind, ledger.delivery_of_row(row.as_row()), error))


def _publish(due: Sequence[tuple[ledger.Publishable, str]]) -> int:
    """Publish rows by queue, several in one Celery message, all of a kind in one round trip.

    A delivery that was lost before is sent alone, because it may end its worker; so is a slow retry, so that no other
    delivery waits behind it.
    """
    groups: dict[tuple[str, int], list[tuple[ledger.Publishable, str]]] = {}
    for row, text in due:
        groups.setdefault((row.queue, _companions(row)), []).append((row, text))
    unsent = {row.id for row, _ in due}
    patience = time.monotonic() + conf.get().PUBLISH_TIMEOUT
    failure: publisher.PublishError | None = None
    try:
        for (queue, most), items in groups.items():
            failed_at = len(items)
            try:
                publisher.publish_texts(queue or None, [text for _, text in items], most=most)
            except publisher.PublishError as error:
                failure, failed_at = error, error.unsent.start
            unsent -= {row.id for row, _ in items[:failed_at]}
            for row, _ in items[:failed_at]:
                _tell("published", row)
            # One queue that takes nothing must not block the others; a broker that does not answer would cost its whole
            # timeout again for each of them.
            if failure is not None and time.monotonic() > patience:
                break
    finally:
        if unsent:
            ledger.return_due(unsent, RETURN_SECONDS)
    if failure is not None:
        raise failure
    return len(due)


def _companions(row: ledger.Publishable) -> int:
    """Return the maximal number of deliveries in the Celery message of a row."""
    if row.publications or (row.attempts and (row.runtime_ms is None or row.runtime_ms > SLOW_MS)):
        return 1
    return RETRIES_TOGETHER if row.attempts else publisher.MAX_TEXTS


def mark() -> None:
    """Send a marker through each queue that needs one; when it comes back, lost deliveries can be found.

    Raises:
        PublishError: the broker did not take it.
        DatabaseError: the ledger could not be read.
    """
    for queue, marked_at in ledger.mark():
        publisher.publish(queue or None, [Marker(queue, marked_at).to_body()])


class Purge:
    """Purge closed messages, a batch after each sweep, while this sweeper has the lease to do so."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._until = 0.0

    def step(self) -> bool:
        """Delete a batch, if this sweeper has the lease.

        Returns:
            Whether there may be more to delete.

        Raises:
            DatabaseError: the ledger could not be reached.
        """
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + PURGE_SECONDS
            if ledger.acquire_purge_lease(PURGE_SECONDS):
                self._until = self._next_at
                ledger.purge_keys(conf.get().KEEP_SECONDS)
                ledger.recall()
                ledger.merge_counts(KEEP_COUNTS)
                ledger.forget_stale_workers()
        if now < self._until and not ledger.purge_some(conf.get().KEEP_SECONDS, batch=PURGE_BATCH):
            self._until = 0.0
        return now < self._until


# Locked during a sweep, so that no child is forked in the midst of it: a child would inherit the sweeper's socket, and
# every lock that the thread had taken, as a logger's, for ever. The forking thread closes the sweeper's connections.
_sweeping = threading.Lock()
_forking = threading.local()  # acquired: this thread, which forks, has locked out the sweeper


_open_connections: list[BaseDatabaseWrapper] = []  # of a sweeper, between two sweeps


def _before_fork() -> None:
    _forking.acquired = _sweeping.acquire(timeout=FORK_SECONDS)
    if _forking.acquired:
        for connection in _open_connections:
            close_connection(connection)


def _after_fork_in_parent() -> None:
    if _forking.acquired:
        _sweeping.release()


def _after_fork_in_child() -> None:
    global _sweeping  # noqa: PLW0603 - the thread that has locked it is not in the child
    _sweeping = threading.Lock()


@cache
def _stop_sweeps_while_forking() -> None:
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class Sweeper(threading.Thread):
    """The thread of a worker's main process that sweeps.

    Args:
        interval: seconds between two looks.
        slots: processes, or threads, of this worker, of which one receiver's retries get half.
    """

    def __init__(self, interval: float, slots: int = 1) -> None:
        super().__init__(name="signalbus-sweeper", daemon=True)
        self._interval = interval
        self._share = ledger.Share(worker_name(), max(1, slots // 2))
        self._retries_wait = False  # for their share of this worker, or for the next batch
        self._lost_wait = False  # for the next batch: the last one was full, and lost deliveries were looked for
        self._mark_at = 0.0
        self._is_stopping = False
        self._woken = threading.Event()  # there is something to do at once
        self._unparked = False
        self._release = Release()
        self._purge = Purge()
        self._stale_code = StaleCode() if settings.DEBUG else None
        self._outages = OutageLog("signalbus could not sweep, and will try again")
        _stop_sweeps_while_forking()

    def run(self) -> None:
        """Sweep until stopped; log errors, and try again."""
        use_no_pools()
        for connection in connections.all():
            connection.inc_thread_sharing()  # the forking thread closes them
        _open_connections[:] = connections.all()
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
        try:
            pause = self._make_due()
            if follows or not ledger.is_idle():
                lost = self._mark() or not follows or self._lost_wait
                published, more = 0, None
                if not lost or ledger.anything_due():
                    published, more = _sweep_some(self._share, lost=lost)
                self._retries_wait = more is not None
                self._lost_wait = lost and more == BREATH
                if not published:  # those on their way are not what runs here now
                    idleness.ignore()
                if more == BREATH:
                    return BREATH
                _lost.tell()
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
        if self._release.step():
            return BREATH
        return self._interval if again is None else again

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

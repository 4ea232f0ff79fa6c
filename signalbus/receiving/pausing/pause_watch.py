"""Keep what is paused in memory, in each process of a worker, as fresh as the promise of five seconds needs.

The sweeper of the main process looks for pauses every two seconds, and notes the time and a version of what it found in
memory that all processes share, mapped before any of them is forked. A process that sees a new version reads the pauses
itself; so it does when the sweeper has not read them for three seconds. A delivery costs no statement otherwise, and
nothing but a look at the memory while nothing is paused.
"""

from __future__ import annotations

import mmap
import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

from django.db import DatabaseError, connections

from signalbus.ledger import attempts as ledger
from signalbus.receiving.process.outages import OutageLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from signalbus.ledger.attempts import PauseRow

REFRESH_SECONDS: Final = 2.0  # between two looks of the sweeper at the pauses
STALE_SECONDS: Final = 3.0  # after which a process looks itself
_NEVER: Final = -STALE_SECONDS - 1  # before any time of the clock
_UNKNOWN: Final = -1  # no version of the sweeper's

Pauses = dict[tuple[str, str], "PauseRow"]  # those in force, by kind and name
NONE: Final[Pauses] = {}


class PauseWatch:
    """What is paused, as far as this process knows.

    Args:
        read: returns all pauses from the ledger.
    """

    def __init__(self, read: Callable[[], list[PauseRow]]) -> None:
        self._read = read
        memory = memoryview(mmap.mmap(-1, 24))
        # Until when no process need look, because the sweeper has read that nothing is paused: `quiet_until[0]`.
        self.quiet_until: memoryview[float] = memory[:8].cast("d")
        self._times = memory[8:16].cast("d")  # when the sweeper last read the pauses
        self._versions = memory[16:].cast("Q")  # of what it read; 0: nothing is paused
        self._times[0] = _NEVER
        self._paused: Pauses = NONE
        self._version = 0  # of the pauses that this process has
        self._count = 0  # of versions, in the main process
        self._read_at = _NEVER  # when this process read them because the sweeper had not
        self._lock = threading.Lock()
        self._outages = OutageLog("signalbus could not read what is paused, and goes by what it knows")
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it

    def paused(self) -> Pauses:
        """Return the pauses that are in force; called for each delivery before it runs, unless it is quiet."""
        swept_at, now = self._times[0], monotonic()
        if swept_at <= self._read_at or now - swept_at > STALE_SECONDS:  # the sweeper is late
            return self._paused if now - self._read_at <= STALE_SECONDS else self._load(None, now)
        version = self._versions[0]
        if not version:
            return NONE
        return self._paused if version == self._version else self._load(version, now)

    def refresh(self) -> list[PauseRow]:
        """Read the pauses for all processes of this worker; called by the sweeper.

        Returns:
            The pauses that are over, and whose deliveries are to be released.

        Raises:
            DatabaseError: the ledger cannot be read.
        """
        began = monotonic()
        rows = self._read()
        self.learn(rows, began)
        return [row for row in rows if row.is_over]

    def learn(self, rows: Sequence[PauseRow], began: float) -> None:
        """Note the pauses for all processes of this worker.

        Args:
            rows: all pauses.
            began: the time of the monotonic clock before they were read.
        """
        paused = _in_force(rows)
        with self._lock:
            if paused != self._paused or not self._is_current():
                self._count += 1
            self._paused = paused
            self._version = self._count if paused else 0
            self._versions[0] = self._version  # before the time: a process that sees the new time sees this
            self._times[0] = began
            self.quiet_until[0] = _NEVER if paused else began + STALE_SECONDS

    def _is_current(self) -> bool:
        return self._version == self._versions[0]

    def _load(self, version: int | None, now: float) -> Pauses:
        """Read the pauses for this process alone; if that fails, what it knew before counts."""
        with self._lock:
            if version is None and now - self._read_at <= STALE_SECONDS:  # another thread has read them
                return self._paused
            try:
                self._paused = _in_force(self._read())
            except DatabaseError as error:
                self._outages.failed(error, expected=True)
                version = None  # to be read again, but not for each delivery
            else:
                self._outages.succeeded()
            if version is None:
                self._version, self._read_at = _UNKNOWN, now
            else:
                self._version = version
            return self._paused


def _in_force(rows: Iterable[PauseRow]) -> Pauses:
    return {(row.kind, row.name): row for row in rows if not row.is_over}


def _read_pauses() -> list[PauseRow]:
    """Return all pauses from the ledger; close a connection that has failed."""
    try:
        return ledger.pause_rows()
    except DatabaseError:
        connections[ledger.using()].close_if_unusable_or_obsolete()
        raise


watch: PauseWatch = PauseWatch(_read_pauses)

"""Log an outage of a database or a broker when it begins and when it ends, not at each failure.

The sweeper, the Celery task, and the threads that record outcomes and read pauses report their failures and successes.
`sending/outbox` has a class of its own, because a sender must also stop trying.
"""

from __future__ import annotations

import logging
import threading
import time

logger: logging.Logger = logging.getLogger("signalbus")

QUIET = 20.0  # seconds without a failure after which it is over: some operations are tried every 15 s
AGAIN = 300.0  # seconds after which an outage that goes on is logged again


class OutageLog:
    """The outages of one kind of work of this process.

    Args:
        what: the beginning of the log line, which says what failed.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._since: float | None = None
        self._last = 0.0
        self._logged_at = 0.0
        self._kinds: set[type[BaseException]] = set()
        self._count = 0

    def failed(self, error: BaseException, *, expected: bool) -> None:
        """Count a failure; log the first one, and the first of each kind.

        Args:
            error: the exception.
            expected: log its message alone; else with its traceback.
        """
        with self._lock:
            now = time.monotonic()
            if self._since is None:
                self._since = now
            self._last = now
            self._count += 1
            if type(error) in self._kinds and now - self._logged_at < AGAIN:
                return
            self._kinds.add(type(error))
            self._logged_at = now
            if expected:
                logger.warning("%s (%d so far): %r", self._what, self._count, error)
            else:
                logger.error("%s (%d so far)", self._what, self._count, exc_info=error)

    def succeeded(self) -> None:
        """Note a success; after a while without a failure, log the end of the outage."""
        if self._since is None:
            return
        with self._lock:
            if self._since is None or time.monotonic() - self._last < QUIET:
                return
            lasted = self._last - self._since
            logger.warning("%s: over after %.1f s and %d failure(s)", self._what, lasted, self._count)
            self._since, self._count = None, 0
            self._kinds.clear()

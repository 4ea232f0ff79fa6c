"""Keep the runtime estimates of this process's atomic receivers: which may share a commit, and which are slow.

`running/gates` and `running/grouping` ask whether a receiver is short enough for a group commit (decision 0026).
`settling/listeners` adds each run time, and has slow receivers warned of.
"""

from __future__ import annotations

import logging
import time

from signalbus import conf
from signalbus.core.runtime_estimate import RuntimeEstimates

logger: logging.Logger = logging.getLogger("signalbus")

BRIEF = 0.05  # seconds: a receiver that takes longer is in no group commit
ALONE_SECONDS = 600.0  # without group commits for a receiver that had to wait for a lock
WARN_EVERY = 3600.0  # seconds between two warnings of one receiver


class ReceiverRuntimes(RuntimeEstimates):
    """The runtime estimates of this process's receivers, by their ids."""

    def __init__(self) -> None:
        super().__init__()
        self._alone_until: dict[str, float] = {}
        self._warned_at: dict[str, float] = {}

    def keep_alone(self, receiver: str) -> None:
        """Exclude a receiver from group commits for a while: it waits for rows that other transactions lock."""
        self._alone_until[receiver] = time.monotonic() + ALONE_SECONDS

    def may_share(self, receiver: str) -> bool:
        """Return whether a receiver's runs are known to be short, and to wait for no lock."""
        return self.expected(receiver) <= BRIEF and self._alone_until.get(receiver, 0.0) <= time.monotonic()

    def warn(self, receiver: str, seconds: float) -> None:
        """Warn of a receiver that kept its transaction open for long, once an hour.

        Args:
            receiver: its id.
            seconds: its run time.
        """
        slow = conf.get().SLOW_SECONDS
        if not slow or seconds <= slow:
            return
        now = time.monotonic()
        if now - self._warned_at.get(receiver, -WARN_EVERY) < WARN_EVERY:
            return
        self._warned_at[receiver] = now
        logger.warning(
            "signalbus: %s ran for %.1f s in its transaction, which holds its locks, and on SQLite everybody who "
            "writes, for as long: connect it with atomic=False, or hand the slow part to a task or a signal of its own",
            receiver,
            seconds,
        )


runtimes: ReceiverRuntimes = ReceiverRuntimes()

"""Read what is paused for all processes of a worker, and release what pauses held that are over.

The sweeper calls it.
"""

from __future__ import annotations

from time import monotonic

from signalbus.ledger import sweeps as ledger
from signalbus.receiving.pausing.pause_watch import REFRESH_SECONDS, watch


class Release:
    """Read the pauses every two seconds while there are any, and release a batch of those that are over."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._over: list[int] = []

    def note_no_pauses(self, began: float) -> None:
        """Note that another statement of the sweeper has found no pauses, which need not be read then.

        Args:
            began: the time of the monotonic clock before that statement.
        """
        watch.learn([], began)
        self._over = []
        self._next_at = began + REFRESH_SECONDS

    def step(self) -> float | None:
        """Read the pauses if it is time to, and release a batch.

        Returns:
            The seconds until more can be released, 0 for at once; None if nothing waits for that.

        Raises:
            DatabaseError: the ledger could not be reached.
        """
        now = monotonic()
        if now >= self._next_at:
            self._over = [pause.id for pause in watch.refresh()]
            self._next_at = now + REFRESH_SECONDS
        waits = [ledger.release_some(pause) for pause in self._over]
        return min((wait for wait in waits if wait is not None), default=None)


def release_all() -> None:
    """Release what can be released now of the pauses that are over, as `sweep` does by hand.

    Raises:
        DatabaseError: the ledger could not be reached.
    """
    for pause in ledger.pause_rows():
        while pause.is_over and ledger.release_some(pause.id) == 0:
            pass

"""Read what is paused for all processes of a worker, and release what ended pauses hold; the sweeper calls it."""

from __future__ import annotations

import time

from signalbus.ledger import sweeps as ledger
from signalbus.receiving.pausing.pause_watch import REFRESH_SECONDS, watch


class Release:
    """Read the pauses every two seconds, and release a batch of the deliveries of each that is over."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._over: list[int] = []

    def step(self) -> float | None:
        """Read the pauses if it is time to, and release a batch.

        Returns:
            The seconds until more can be released, 0 for at once; None if nothing waits for that.

        Raises:
            DatabaseError: the ledger could not be reached.
        """
        now = time.monotonic()
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

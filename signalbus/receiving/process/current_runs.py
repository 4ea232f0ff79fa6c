"""Note which deliveries this process runs, and since when.

Not a listener of `started`: that event, in the receiver's transaction, costs thirty times as much (decision 0046).
"""

from __future__ import annotations

import os
import time
from threading import get_ident
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.context import CurrentDelivery

    Run = tuple[CurrentDelivery, float]  # with the time of its beginning, by the monotonic clock


class CurrentRuns:
    """The deliveries that the threads of this process run, each with the time of its beginning."""

    def __init__(self) -> None:
        self.wake: Callable[[], object] | None = None  # called at the next beginning
        self._runs: dict[int, Run] = {}

    def begin(self, delivery: CurrentDelivery) -> Run | None:
        """Note that this thread runs a delivery; return what to give to `end` after the run."""
        thread = get_ident()
        former = self._runs.get(thread)
        self._runs[thread] = (delivery, time.monotonic())
        wake = self.wake
        if wake is not None:
            wake()
        return former

    def end(self, former: Run | None) -> None:
        """Note that this thread's run has ended.

        Args:
            former: what `begin` returned: the run inside which the one that has ended was.
        """
        if former is None:
            self._runs.pop(get_ident(), None)  # forgotten if the receiver has forked
        else:
            self._runs[get_ident()] = former

    def any(self) -> bool:
        """Return whether this process runs a delivery."""
        return bool(self._runs)

    def longer_than(self, seconds: float) -> list[tuple[CurrentDelivery, float]]:
        """Return the deliveries that have run for longer, each with the seconds since its beginning."""
        now = time.monotonic()
        return [(delivery, now - began) for delivery, began in list(self._runs.values()) if now - began > seconds]

    def forget(self) -> None:
        """Forget all runs and whom to wake, as in a forked child: they are its parent's."""
        self._runs.clear()
        self.wake = None


current_runs: CurrentRuns = CurrentRuns()
os.register_at_fork(after_in_child=current_runs.forget)

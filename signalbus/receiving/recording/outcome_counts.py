"""Count the outcomes of deliveries in this process, until they are added to the ledger."""

from __future__ import annotations

import os
from bisect import bisect_left
from threading import Lock
from typing import TYPE_CHECKING

from signalbus import conf
from signalbus.ledger.history import BOUNDS, Counts, Series
from signalbus.logs import LONGEST
from signalbus.wire.message import age_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from signalbus.events import Event


class OutcomeCounts:
    """The outcomes that this process has counted since they were last taken."""

    def __init__(self) -> None:
        self.wake: Callable[[], object] | None = None  # called at the next first outcome of a receiver
        self._lock = Lock()
        self._counts: dict[tuple[str, str], Counts] = {}  # by signal and receiver: few things are done for each event
        self._queues: dict[tuple[str, str], str] = {}

    def count(self, event: Event) -> None:
        """Count an outcome; a listener of "done", "failed", "dead" and "skipped"."""
        kind, delivery, _, _, seconds, _, _ = event
        if not delivery.receiver:
            return  # a whole message, whose receivers have deliveries of their own
        key = (delivery.signal, delivery.receiver)
        with self._lock:
            counts = self._counts.get(key)
            if counts is None:
                counts = self._begin(event, key)
            if kind == "done":
                counts.done += 1
            else:
                setattr(counts, kind, getattr(counts, kind) + 1)
            if seconds is None:
                return
            counts.runtime += seconds
            counts.runtimes[bisect_left(BOUNDS, seconds)] += 1
            if delivery.attempt == 1:
                delay = age_of(delivery.message_id) - seconds
                if delay < LONGEST:
                    if delay > 0:  # the sender's clock may be ahead
                        counts.delay += delay
                    counts.delays[bisect_left(BOUNDS, delay)] += 1

    def _begin(self, event: Event, key: tuple[str, str]) -> Counts:
        if event.receiver is not None or key not in self._queues:
            self._queues[key] = "" if event.receiver is None else event.receiver.queue or ""
        counts = self._counts[key] = Counts()
        wake = self.wake
        if wake is not None:
            wake()
        return counts

    def any(self) -> bool:
        """Return whether something was counted since the counts were last taken."""
        return bool(self._counts)

    def take(self) -> Mapping[Series, Counts]:
        """Return what was counted, and begin anew."""
        with self._lock:
            taken, self._counts = self._counts, {}
        release = conf.release()
        return {
            Series(release, self._queues[signal, receiver], signal, receiver): counts
            for (signal, receiver), counts in taken.items()
        }

    def put_back(self, taken: Mapping[Series, Counts]) -> None:
        """Add counts that could not be added to the ledger."""
        with self._lock:
            for series, counts in taken.items():
                self._counts.setdefault((series.signal, series.receiver), Counts()).add(counts)

    def forget(self) -> None:
        """Forget what was counted, as in a forked child: its parent records that."""
        self._lock = Lock()
        self._counts = {}
        self.wake = None


outcome_counts: OutcomeCounts = OutcomeCounts()
os.register_at_fork(after_in_child=outcome_counts.forget)

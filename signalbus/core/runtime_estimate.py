"""Estimate run times by their exponentially weighted moving average (EWMA), which rises faster than it falls.

`receiver_runtimes` keeps one estimate for each receiver, `transport/batching` one for each queue and signal.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

WEIGHT_IF_SLOWER, WEIGHT_IF_FASTER = 0.5, 0.1  # the weight of a sample that is slower, or faster, than the estimate
MOST = 4096  # keys that are remembered; a new one replaces the oldest


class RuntimeEstimates:
    """Runtime estimates in seconds, by key."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def learn(self, key: Hashable, seconds: float) -> None:
        """Add a sample of a run time.

        Args:
            key: of the receiver or signal that ran.
            seconds: how long it ran.
        """
        known = self._seconds.get(key)
        if known is not None:
            seconds = known + (seconds - known) * (WEIGHT_IF_SLOWER if seconds > known else WEIGHT_IF_FASTER)
        elif len(self._seconds) >= MOST:
            del self._seconds[next(iter(self._seconds))]
        self._seconds[key] = seconds

    def learn_batch(self, keys: Sequence[Hashable], seconds: float) -> None:
        """Add a sample of a batch: each key gets its share, by the estimates so far if all are known.

        Args:
            keys: of the members of the batch; a key may occur several times.
            seconds: how long the batch ran in all.
        """
        counts = Counter(keys)
        known = {key: self._seconds.get(key, 0.0) for key in counts}
        total = sum(known[key] * count for key, count in counts.items())
        for key in counts:
            self.learn(key, seconds * known[key] / total if all(known.values()) else seconds / len(keys))

    def expected(self, key: Hashable) -> float:
        """Return the estimate of a key in seconds; infinite for a key that has not been seen yet."""
        return self._seconds.get(key, float("inf"))

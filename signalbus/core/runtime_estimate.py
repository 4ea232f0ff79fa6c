"""How long things take, as this process has seen it: quick to fear, slow to trust."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

WEIGHT_IF_SLOWER, WEIGHT_IF_FASTER = 0.5, 0.1  # what a sample that is slower, or faster, than what is known counts for
MOST = 4096  # things that are remembered; a new one takes the oldest's place


class RuntimeEstimates:
    """The seconds that things take, by their keys."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def learn(self, key: Hashable, seconds: float) -> None:
        """Note how long a thing took.

        Args:
            key: which.
            seconds: how long.
        """
        known = self._seconds.get(key)
        if known is not None:
            seconds = known + (seconds - known) * (WEIGHT_IF_SLOWER if seconds > known else WEIGHT_IF_FASTER)
        elif len(self._seconds) >= MOST:
            del self._seconds[next(iter(self._seconds))]
        self._seconds[key] = seconds

    def learn_batch(self, keys: Sequence[Hashable], seconds: float) -> None:
        """Note how long several things took together: each its part, as far as their own times are known.

        Args:
            keys: which; one may stand there several times.
            seconds: how long they took in all.
        """
        counts = Counter(keys)
        known = {key: self._seconds.get(key, 0.0) for key in counts}
        total = sum(known[key] * count for key, count in counts.items())
        for key in counts:
            self.learn(key, seconds * known[key] / total if all(known.values()) else seconds / len(keys))

    def expected(self, key: Hashable) -> float:
        """Return the seconds that a thing is expected to take; without end for what has not been seen yet."""
        return self._seconds.get(key, float("inf"))

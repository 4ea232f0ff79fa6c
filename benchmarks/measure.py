"""Two ways to do a thing, timed by turns, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Line:
    """A comparison, as the table shows it.

    Args:
        title: what was done.
        ours: how much of the unit, median.
        other: the same for what it is compared with.
        unit: "us" for microseconds a time, where less is better; "/s" for a rate, where more is.
        ratio: the median of the rounds' ratios, ours to the other.
        spread: the lowest and the highest of them.
        target: what the ratio must not pass, or None where nothing was promised.
    """

    title: str
    ours: float
    other: float
    unit: str
    ratio: float
    spread: tuple[float, float]
    target: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the target was held."""
        if self.target is None:
            return ""
        held = self.ratio <= self.target if self.unit == "us" else self.ratio >= self.target
        sign = "<=" if self.unit == "us" else ">="
        return f"{sign} {self.target:g} {'held' if held else 'MISSED'}"

    def __str__(self) -> str:
        low, high = self.spread
        numbers = f"{self.ours:>10,.1f} {self.other:>10,.1f} {self.unit:<3}"
        return f"  {self.title:<58} {numbers} {self.ratio:>6.2f} ({low:.2f} to {high:.2f})  {self.verdict}"


def summarize(title: str, pairs: Sequence[tuple[float, float]], unit: str, target: float | None) -> Line:
    """Make a line of the rounds' pairs (ours, other)."""
    ratios = [ours / other for ours, other in pairs]
    ours, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Line(title, ours, other, unit, statistics.median(ratios), (min(ratios), max(ratios)), target)


def compare(  # noqa: PLR0913 - a measurement has these
    title: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    calls: int,
    rounds: int,
    per_call: int = 1,
    target: float | None = None,
    before: Callable[[], object] = int,
    between: Callable[[], object] = int,
) -> Line:
    """Time two functions by turns.

    Args:
        title: what they do.
        ours: the bus's way.
        other: what it is compared with.
        calls: of each, in a round.
        rounds: how many.
        per_call: operations in one call.
        target: the highest ratio that was promised.
        before: prepares each round.
        between: cleans up after each round.
    """
    pairs = []
    for round_ in range(rounds + 1):
        before()
        if round_ % 2:
            mine = _time(ours, calls)
            theirs = _time(other, calls)
        else:
            theirs = _time(other, calls)
            mine = _time(ours, calls)
        between()
        pairs.append((mine / per_call * 1e6, theirs / per_call * 1e6))
    return summarize(title, pairs[1:], "us", target)  # without the first, which filled the caches


def _time(function: Callable[[], object], calls: int) -> float:
    """Return the seconds that a call takes."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls
    finally:
        gc.enable()

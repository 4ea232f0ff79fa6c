"""The result of a comparison, its goal, and whether it was held."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 78  # of the titles


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of a ratio.

    Args:
        sign: "<=" or ">=".
        value: the number after it.
    """

    sign: str
    value: float

    def held_by(self, ratio: float) -> bool:
        """Return whether a ratio holds the goal."""
        return ratio <= self.value if self.sign == "<=" else ratio >= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


def at_most(value: float) -> Goal:
    """Return the goal of a ratio with an upper limit."""
    return Goal("<=", value)


def at_least(value: float) -> Goal:
    """Return the goal of a ratio with a lower limit."""
    return Goal(">=", value)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of one comparison: a line of the table.

    Args:
        title: what was done, and which ratio is meant.
        ours: how much of the unit, median of the rounds.
        other: the same for what it is compared with.
        unit: "us" for microseconds a time, "/s" for a rate, …
        ratio: the median of the rounds' ratios.
        spread: the lowest and the highest of them.
        goal: what was aimed at, or None where nothing was.
        cpu: microseconds of processor time a message, ours and the other's: of all processes, broker and database too.
    """

    title: str
    ours: float
    other: float
    unit: str
    ratio: float
    spread: tuple[float, float]
    goal: Goal | None = None
    cpu: tuple[float, float] | None = None

    @property
    def held(self) -> bool | None:
        """Whether the goal was held; None without a goal."""
        return None if self.goal is None else self.goal.held_by(self.ratio)

    @property
    def verdict(self) -> str:
        """The goal, and whether it was held."""
        return "" if self.goal is None else f"{self.goal} {'held' if self.held else 'MISSED'}"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "held": self.held}

    def __str__(self) -> str:
        low, high = self.spread
        numbers = f"{self.ours:>11,.1f} {self.other:>11,.1f} {self.unit:<6}"
        cpu = "" if self.cpu is None else f"{self.cpu[0]:,.0f} : {self.cpu[1]:,.0f}"
        return (
            f"  {self.title:<{WIDTH}} {numbers} {cpu:>15} {self.ratio:>7.2f} ({low:.2f} to {high:.2f})  {self.verdict}"
        )


HEADER = f"  {'':<{WIDTH}} {'ours':>11} {'other':>11} {'':<6} {'CPU us/message':>15}   ratio (lowest to highest)"


def summarize(  # noqa: PLR0913 - a comparison has these
    title: str,
    ours: Sequence[float],
    other: Sequence[float],
    unit: str,
    goal: Goal | None = None,
    *,
    upside_down: bool = False,
    cpu: tuple[float, float] | None = None,
) -> Comparison:
    """Summarize the figures of the rounds.

    Args:
        title: what was done.
        ours: a number for each round.
        other: as many.
        unit: of both.
        goal: of the ratio.
        upside_down: whether the ratio is other to ours, not ours to other.
        cpu: as `Comparison` has it.
    """
    pairs = list(zip(ours, other, strict=True))
    ratios = [theirs / mine if upside_down else mine / theirs for mine, theirs in pairs]
    spread = (min(ratios), max(ratios))
    return Comparison(
        title, statistics.median(ours), statistics.median(other), unit, statistics.median(ratios), spread, goal, cpu
    )

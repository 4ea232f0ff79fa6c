"""Compute the shapes of charts: bars on a shared axis of time, of which a template makes inline SVG.

Positions are per cent of the width and pixels of the height: the picture needs no style attribute, and its text keeps
its shape on a phone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from signalbus.pages.figures import SpanOutcomes

HEIGHT: Final = 64  # pixels
TOP: Final = 12  # pixels for the names of releases
LEAST: Final = 1.5  # pixels of a bar that is not 0
GAP: Final = 0.12  # of a bar's width
NAME_CHARS: Final = 12  # of a release: on a phone they are a third of a chart's width, in any font
NAME_SPACE: Final = 30  # per cent of the width between two marks that are named
MIDDLE: Final = 50  # per cent: a name stands on that side of its line on which there is more room


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar.

    Args:
        x: its left edge, in per cent.
        width: in per cent.
        y: its upper edge, in pixels.
        height: in pixels.
    """

    x: str
    width: str
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A dashed line with a name.

    Args:
        x: where it is, in per cent.
        text: the name; empty if there is no room for it beside the next one.
        is_late: whether the name stands to the left of it.
        name: the whole name.
    """

    x: str
    text: str
    is_late: bool
    name: str


@dataclass(slots=True)
class Strip:
    """One measure over time.

    Args:
        title: the measure.
        most: its largest value.
        total: the sum of its values.
        tone: the class of the bars' colour.
        bars: the bars that are not 0.
    """

    title: str
    most: int
    total: int
    tone: str
    bars: list[Bar] = field(default_factory=list)


@dataclass(slots=True)
class Chart:
    """Strips over one axis of time.

    Args:
        strips: the measures.
        marks: the releases.
        ticks: places in per cent, with the times that they stand for.
        rows: the numbers as a table: the beginning of each step, and a value of each strip.
    """

    strips: list[Strip]
    marks: list[Mark]
    ticks: list[tuple[str, datetime, str]]
    rows: list[tuple[datetime, list[int]]]


def bars_of(values: Sequence[int], height: int = HEIGHT, top: int = TOP) -> list[Bar]:
    """Return the bars of some values, which are not negative.

    Args:
        values: one for each bar, from left to right.
        height: of the picture, in pixels.
        top: pixels that stay free above the largest.
    """
    most, width = max(values, default=0), 100 / max(1, len(values))
    found = []
    for number, value in enumerate(values):
        if value:
            tall = max(LEAST, (height - top) * value / most)
            found.append(
                Bar(
                    f"{width * (number + GAP / 2):.2f}%", f"{width * (1 - GAP):.2f}%", f"{height - tall:.1f}",
                    f"{tall:.1f}",
                )
            )  # fmt: skip
    return found


def chart_of(found: SpanOutcomes, measures: Sequence[tuple[str, str, tuple[str, ...]]]) -> Chart:
    """Return the chart of outcomes over time.

    Args:
        found: the outcomes.
        measures: for each strip its title, the class of its colour, and the outcomes that are added up.
    """
    points = found.points
    strips, table = [], []
    for title, tone, names in measures:
        values = [sum(getattr(point, name) for name in names) for point in points]
        strips.append(Strip(title, max(values, default=0), sum(values), tone, bars_of(values)))
        table.append(values)
    start, end = points[0].at, points[-1].at + (points[1].at - points[0].at)
    length = (end - start).total_seconds()

    def place(moment: datetime) -> float:
        return 100 * (moment - start).total_seconds() / length

    marks = marks_at([(place(at), name) for at, name in found.releases])
    some = [(0, "start"), (1, "middle"), (2, "middle"), (3, "middle"), (4, "end")]
    ticks = [(f"{25 * number}%", start + (end - start) * number / 4, anchor) for number, anchor in some]
    rows = list(zip((point.at for point in points), map(list, zip(*table, strict=True)), strict=True))
    return Chart(strips, marks, ticks, rows)


def marks_at(places: Sequence[tuple[float, str]]) -> list[Mark]:
    """Return the lines of releases, named where the names neither leave the chart nor cover each other.

    Args:
        places: per cent of the width with a name, from left to right.
    """
    found: list[Mark] = []
    taken = float("inf")  # the left end of what the names to the right of it cover
    for x, name in reversed(places):
        is_late = x > MIDDLE
        left, right = (x - NAME_SPACE, x) if is_late else (x, x + NAME_SPACE)
        has_room = right <= taken
        taken = min(taken, left) if has_room else min(taken, x)
        found.append(Mark(f"{x:.2f}%", name[:NAME_CHARS] if has_room else "", is_late, name))
    return found[::-1]

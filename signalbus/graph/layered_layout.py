"""Place the boxes of a graph in columns: few lines cross, boxes stand beside their neighbours, and none overlap.

Each box has a given column. Within a column the boxes are ordered by the mean place of their neighbours (the
barycentre heuristic), those of one group together; then each is moved as near to its neighbours as the order allows.
It knows nothing of signals.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SWEEPS: Final = 4  # over all columns and back; more change little
GAP: Final = 8  # pixels between two boxes of a column
GROUP_GAP: Final = 20  # pixels between two groups


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle to be placed.

    Args:
        key: its name among the boxes.
        column: its column, 0 for the first.
        group: boxes of one group stand together in their column; empty for none.
        height: in pixels.
    """

    key: str
    column: int
    group: str
    height: int


Columns = list[list[Box]]


def place(boxes: Iterable[Box], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the upper edge of each box, in pixels from 0.

    Args:
        boxes: the boxes; those that come first are placed higher where nothing else decides.
        edges: pairs of keys, in either direction; those whose columns are no neighbours are ignored.
    """
    columns: defaultdict[int, list[Box]] = defaultdict(list)
    for box in boxes:
        columns[box.column].append(box)
    ordered = [_together(columns[number], {}) for number in sorted(columns)]
    neighbours = _neighbours(ordered, edges)
    return _aligned(_with_few_crossings(ordered, neighbours), neighbours)


def _neighbours(columns: Columns, edges: Iterable[tuple[str, str]]) -> list[dict[str, list[str]]]:
    """Return for each column the neighbours of its boxes in the column before; both ways: see `_beside`."""
    number_of = {box.key: number for number, column in enumerate(columns) for box in column}
    found: list[dict[str, list[str]]] = [defaultdict(list) for _ in columns]
    for pair in edges:
        left, right = sorted(pair, key=lambda key: number_of[key])
        if number_of[right] - number_of[left] == 1:
            found[number_of[right]][right].append(left)
    return found


def _beside(neighbours: list[dict[str, list[str]]], number: int, other: int) -> dict[str, list[str]]:
    """Return the neighbours of a column's boxes in the column before or after it."""
    if other < number:
        return neighbours[number]
    turned: defaultdict[str, list[str]] = defaultdict(list)
    for right, lefts in neighbours[other].items():
        for left in lefts:
            turned[left].append(right)
    return turned


def _sweep(count: int) -> list[tuple[int, int]]:
    """Return the columns of one sweep, each with the column that decides: to the right, and back."""
    return [*((number, number - 1) for number in range(1, count)), *((n, n + 1) for n in range(count - 2, -1, -1))]


def _with_few_crossings(columns: Columns, neighbours: list[dict[str, list[str]]]) -> Columns:
    best, fewest = columns, _crossings(columns, neighbours)
    for _ in range(SWEEPS):
        if not fewest:
            break
        columns = list(columns)
        for number, other in _sweep(len(columns)):
            rank = {box.key: float(index) for index, box in enumerate(columns[other])}
            wanted = _means(_beside(neighbours, number, other), rank)
            columns[number] = _together(columns[number], wanted)
        crossings = _crossings(columns, neighbours)
        if crossings < fewest:
            best, fewest = columns, crossings
    return best


def _means(beside: dict[str, list[str]], of: dict[str, float]) -> dict[str, float]:
    return {key: fmean(of[each] for each in keys) for key, keys in beside.items()}


def _together(column: Sequence[Box], wanted: dict[str, float]) -> list[Box]:
    """Return the boxes of a column by where they want to be, without tearing a group apart; those without stay."""
    where = {box.key: wanted.get(box.key, float(index)) for index, box in enumerate(column)}
    groups: defaultdict[str, list[Box]] = defaultdict(list)
    for box in column:
        groups[box.group or f"\0{box.key}"].append(box)
    by_group = sorted(groups.values(), key=lambda group: fmean(where[box.key] for box in group))
    return [box for group in by_group for box in sorted(group, key=lambda box: where[box.key])]


def _crossings(columns: Columns, neighbours: list[dict[str, list[str]]]) -> int:
    """Return how many pairs of lines cross."""
    total = 0
    for number in range(1, len(columns)):
        rank = {box.key: index for index, box in enumerate(columns[number - 1])}
        passed: list[int] = []
        for box in columns[number]:
            ends = [rank[left] for left in neighbours[number].get(box.key, ())]
            total += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return total


def _aligned(columns: Columns, neighbours: list[dict[str, list[str]]]) -> dict[str, int]:
    """Return the upper edges: each box as near to its neighbours' middle as its order in the column allows."""
    middle = {
        box.key: top + box.height / 2 for column in columns for box, top in zip(column, _stacked(column), strict=True)
    }
    for _ in range(SWEEPS):
        for number, other in _sweep(len(columns)):
            wanted = middle | _means(_beside(neighbours, number, other), middle)
            column = columns[number]
            tops = _nearest([wanted[box.key] - box.height / 2 for box in column], _stacked(column))
            middle |= {box.key: top + box.height / 2 for box, top in zip(column, tops, strict=True)}
    return {box.key: round(middle[box.key] - box.height / 2) for column in columns for box in column}


def _stacked(column: Sequence[Box]) -> list[float]:
    """Return the upper edges of boxes that stand as closely as they may."""
    tops = [0.0] * bool(column)
    for above, below in pairwise(column):
        tops.append(tops[-1] + above.height + (GAP if above.group == below.group else GROUP_GAP))
    return tops


def _nearest(wanted: Sequence[float], stacked: Sequence[float]) -> list[float]:
    """Return places in the given order, none above 0, with the least sum of squared distances to the wanted ones.

    This is an isotonic regression: neighbours that would overlap are pooled, and take the mean of what they want.

    Args:
        wanted: the places.
        stacked: the places of boxes that stand as closely as they may.
    """
    pools: list[tuple[float, int]] = []  # mean, number
    for want, least in zip(wanted, stacked, strict=True):
        mean, number = want - least, 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, number = (before * count + mean * number) / (count + number), count + number
        pools.append((mean, number))
    moved = [max(0.0, mean) for mean, number in pools for _ in range(number)]
    return [shift + least for shift, least in zip(moved, stacked, strict=True)]

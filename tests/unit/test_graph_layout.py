"""The layout of a graph: boxes of a column never overlap, groups stay together, and lines cross no more than before."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby, pairwise

from hypothesis import given, strategies

from signalbus.graph import layered_layout
from signalbus.graph.layered_layout import GAP, Box, place


@strategies.composite
def graphs(draw: strategies.DrawFn) -> tuple[list[Box], list[tuple[str, str]]]:
    """Some boxes in columns, in groups, of different heights, and pairs of them."""
    columns = draw(strategies.lists(strategies.integers(0, 3), max_size=25))
    boxes = [
        Box(str(number), column, draw(strategies.sampled_from(["", "a", "b"])), draw(strategies.integers(1, 60)))
        for number, column in enumerate(columns)
    ]
    keys = [box.key for box in boxes]
    pairs = strategies.tuples(strategies.sampled_from(keys), strategies.sampled_from(keys)) if keys else None
    return boxes, [] if pairs is None else draw(strategies.lists(pairs, max_size=40))


@given(graphs())
def test_no_two_boxes_of_a_column_overlap(graph: tuple[list[Box], list[tuple[str, str]]]):
    """Each box has a place from 0 on, at least a gap below the one above; the boxes of a group are not torn apart."""
    boxes, edges = graph
    tops = place(boxes, edges)

    assert tops.keys() == {box.key for box in boxes}
    assert min(tops.values(), default=0) >= 0
    columns = defaultdict(list)
    for box in sorted(boxes, key=lambda box: tops[box.key]):
        columns[box.column].append(box)
    for column in columns.values():
        for above, below in pairwise(column):
            assert tops[below.key] - tops[above.key] >= above.height + GAP - 1  # they are rounded
        groups = [name for name, _ in groupby(box.group for box in column) if name]
        assert len(groups) == len(set(groups))


@given(graphs())
def test_lines_cross_no_more_than_in_the_given_order(graph: tuple[list[Box], list[tuple[str, str]]]):
    """Ordering by the neighbours never makes the picture worse."""
    boxes, edges = graph
    tops = place(boxes, edges)
    columns: defaultdict[int, list[Box]] = defaultdict(list)
    for box in boxes:
        columns[box.column].append(box)
    given_order = [layered_layout._together(columns[number], {}) for number in sorted(columns)]
    neighbours = layered_layout._neighbours(given_order, edges)
    ordered = [sorted(column, key=lambda box: tops[box.key]) for column in given_order]

    assert layered_layout._crossings(ordered, neighbours) <= layered_layout._crossings(given_order, neighbours)


def test_lines_that_cross_are_untangled():
    """Two pairs that are given crosswise stand side by side."""
    boxes = [Box("a", 0, "", 20), Box("b", 0, "", 20), Box("x", 1, "", 20), Box("y", 1, "", 20)]

    tops = place(boxes, [("a", "y"), ("b", "x")])

    assert (tops["a"] < tops["b"]) == (tops["y"] < tops["x"])
    assert (tops["a"], tops["b"]) == (tops["y"], tops["x"])


def test_a_box_is_placed_at_the_middle_of_its_neighbours():
    """One signal with three receivers is drawn beside the second."""
    boxes = [Box("signal", 0, "", 20), *(Box(name, 1, "", 20) for name in "abc")]

    tops = place(boxes, [("signal", name) for name in "abc"])

    assert tops["signal"] == tops["b"]

"""Charts: the names of releases stay inside the picture, and none covers another."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from signalbus.web.svg_charts import NAME_CHARS, NAME_SPACE, marks_at

PLACES = st.lists(st.floats(0, 100), max_size=5).map(sorted)


@given(PLACES)
def test_names_of_releases_neither_leave_a_chart_nor_cover_each_other(places: list[float]):
    """Wherever releases stand, the names beside their lines have room; the last one is always named."""
    marks = marks_at([(place, "c3d4e5f6a7b8c9d0") for place in places])

    covered = []
    for place, mark in zip(places, marks, strict=True):
        if mark.text:
            covered.append((place - NAME_SPACE, place) if mark.is_late else (place, place + NAME_SPACE))
    assert all(left >= 0 and right <= 100 for left, right in covered)
    assert all(before[1] <= after[0] for before, after in pairwise(covered))
    assert not marks or marks[-1].text


def test_a_long_name_of_a_release_is_cut_and_kept_whole_in_its_title():
    """A chart of 260 pixels has room for twelve characters."""
    (mark,) = marks_at([(10.0, "c3d4e5f6a7b8c9d0")])

    assert mark.text == "c3d4e5f6a7b8"
    assert len(mark.text) == NAME_CHARS
    assert mark.name == "c3d4e5f6a7b8c9d0"

"""Failures of one cause have one group; two causes have two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from signalbus.core.error_groups import group_of
from signalbus.exceptions import SignalBusError

if TYPE_CHECKING:
    from collections.abc import Callable


def read_slug(text: str) -> None:
    """Raise a KeyError whose message is a text, from one of two lines."""
    if text == "a":
        raise KeyError(text)
    raise KeyError(text)


def read_name(text: str) -> None:
    """Raise the same error elsewhere."""
    raise KeyError(text)


def raise_type_error(text: str) -> None:
    """Raise another error."""
    raise TypeError(text)


def divide(text: str) -> None:
    """Fail inside the standard library."""
    import statistics

    statistics.mean([len(text)][:0])


def raised_by(function: Callable[[str], None], text: str = "a") -> BaseException:
    """Return what a function raises."""
    with pytest.raises(Exception) as caught:
        function(text)
    return caught.value


def test_an_errors_message_and_line_do_not_matter():
    """The id of a row in a message, and a new release that moves lines, split no group."""
    assert group_of(raised_by(read_slug, "a"), "tag") == group_of(raised_by(read_slug, "b"), "tag")


def test_errors_are_grouped_by_type_place_and_receiver():
    """Another type, another function of the project, and another receiver are other causes."""
    error = raised_by(read_slug)
    groups = {
        group_of(error, "tag"),
        group_of(error, "note"),
        group_of(raised_by(read_name), "tag"),
        group_of(raised_by(raise_type_error), "tag"),
    }
    assert len(groups) == 4
    assert all(len(group) == 12 for group in groups)


def test_the_place_is_the_last_one_in_the_project():
    """A library may raise its error from anywhere: what called it in the project is the place."""

    def through_another(text: str) -> None:
        divide(text)

    assert group_of(raised_by(divide), "tag") == group_of(raised_by(through_another), "tag")


def test_an_error_without_a_traceback_has_a_group():
    """All lost processes of a receiver are one group, whatever signal ended them."""
    assert group_of(SignalBusError("signal 9"), "tag") == group_of(SignalBusError("signal 11"), "tag")

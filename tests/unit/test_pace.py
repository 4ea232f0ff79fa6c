"""What a process learns of the time that things take."""

from __future__ import annotations

import math

import pytest

from signalbus.core import runtime_estimate as module
from signalbus.core.runtime_estimate import Pace


@pytest.fixture
def pace() -> Pace:
    """One that has seen nothing."""
    return Pace()


def test_what_was_not_seen_may_take_for_ever(pace: Pace):
    """So nobody keeps it company."""
    assert pace.expected("new") == math.inf


def test_the_first_time_counts_whole(pace: Pace):
    """There is nothing else to go by."""
    pace.learn("a", 0.002)
    assert pace.expected("a") == 0.002


def test_a_slower_time_counts_for_more_than_a_faster_one(pace: Pace):
    """Quick to fear, slow to trust."""
    pace.learn("a", 1.0)
    pace.learn("a", 2.0)
    assert pace.expected("a") == pytest.approx(1.5)
    pace.learn("a", 0.5)
    assert pace.expected("a") == pytest.approx(1.4)


def test_together_each_takes_its_part(pace: Pace):
    """In proportion to what is known of each, so that the brief are not blamed for the slow."""
    pace.learn("brief", 0.001)
    pace.learn("slow", 0.009)

    pace.learn_together(["brief", "slow"], 0.02)

    assert pace.expected("slow") == pytest.approx(0.0135)
    assert pace.expected("brief") == pytest.approx(0.0015)


def test_together_with_a_stranger_all_are_equal(pace: Pace):
    """Whose part it was cannot be told."""
    pace.learn("known", 0.01)
    pace.learn_together(["known", "new", "new"], 0.03)
    assert pace.expected("new") == pytest.approx(0.01)


def test_nothing_together_teaches_nothing(pace: Pace):
    """Such as a message without texts."""
    pace.learn_together([], 1.0)
    assert pace.expected(None) == math.inf


def test_only_so_much_is_remembered(pace: Pace, monkeypatch):
    """Whoever can write to the broker makes up names: the oldest makes room."""
    monkeypatch.setattr(module, "MOST", 3)
    for name in "abcd":
        pace.learn(name, 0.1)
    assert [pace.expected(name) for name in "abcd"] == [math.inf, 0.1, 0.1, 0.1]

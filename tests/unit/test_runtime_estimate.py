"""The runtime estimate: a process learns the time of each signal."""

from __future__ import annotations

import math

import pytest

from signalbus.core import runtime_estimate as module
from signalbus.core.runtime_estimate import RuntimeEstimates


@pytest.fixture
def pace() -> RuntimeEstimates:
    """A runtime estimate without any observation."""
    return RuntimeEstimates()


def test_an_unknown_signal_has_no_estimate(pace: RuntimeEstimates):
    """So it runs alone."""
    assert pace.expected("new") == math.inf


def test_the_first_observation_is_the_estimate(pace: RuntimeEstimates):
    """There is no other one yet."""
    pace.learn("a", 0.002)
    assert pace.expected("a") == 0.002


def test_a_slower_run_changes_the_estimate_more_than_a_faster_one(pace: RuntimeEstimates):
    """The estimate rises quickly and falls slowly."""
    pace.learn("a", 1.0)
    pace.learn("a", 2.0)
    assert pace.expected("a") == pytest.approx(1.5)
    pace.learn("a", 0.5)
    assert pace.expected("a") == pytest.approx(1.4)


def test_the_time_of_a_batch_is_divided_in_proportion(pace: RuntimeEstimates):
    """So a slow signal does not raise the estimates of brief ones."""
    pace.learn("brief", 0.001)
    pace.learn("slow", 0.009)

    pace.learn_batch(["brief", "slow"], 0.02)

    assert pace.expected("slow") == pytest.approx(0.0135)
    assert pace.expected("brief") == pytest.approx(0.0015)


def test_the_time_of_a_batch_with_an_unknown_signal_is_divided_equally(pace: RuntimeEstimates):
    """The part of each is not known."""
    pace.learn("known", 0.01)
    pace.learn_batch(["known", "new", "new"], 0.03)
    assert pace.expected("new") == pytest.approx(0.01)


def test_an_empty_batch_changes_no_estimate(pace: RuntimeEstimates):
    """A message without texts is an example."""
    pace.learn_batch([], 1.0)
    assert pace.expected(None) == math.inf


def test_the_number_of_estimates_is_limited(pace: RuntimeEstimates, monkeypatch):
    """Anybody who can write to the broker can invent names; the oldest is forgotten."""
    monkeypatch.setattr(module, "MOST", 3)
    for name in "abcd":
        pace.learn(name, 0.1)
    assert [pace.expected(name) for name in "abcd"] == [math.inf, 0.1, 0.1, 0.1]

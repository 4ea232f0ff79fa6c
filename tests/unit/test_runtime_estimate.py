"""The runtime estimate: a process learns the time of each signal."""

from __future__ import annotations

import math

import pytest

from signalbus.core import runtime_estimate as module
from signalbus.core.runtime_estimate import RuntimeEstimates


@pytest.fixture
def estimates() -> RuntimeEstimates:
    """A runtime estimate without any observation."""
    return RuntimeEstimates()


def test_an_unknown_signal_has_no_estimate(estimates: RuntimeEstimates):
    """So it runs alone."""
    assert estimates.expected("new") == math.inf


def test_the_first_observation_is_the_estimate(estimates: RuntimeEstimates):
    """There is no other one yet."""
    estimates.learn("a", 0.002)
    assert estimates.expected("a") == 0.002


def test_a_slower_run_changes_the_estimate_more_than_a_faster_one(estimates: RuntimeEstimates):
    """The estimate rises quickly and falls slowly."""
    estimates.learn("a", 1.0)
    estimates.learn("a", 2.0)
    assert estimates.expected("a") == pytest.approx(1.5)
    estimates.learn("a", 0.5)
    assert estimates.expected("a") == pytest.approx(1.4)


def test_the_time_of_a_batch_is_divided_in_proportion(estimates: RuntimeEstimates):
    """So a slow signal does not raise the estimates of brief ones."""
    estimates.learn("brief", 0.001)
    estimates.learn("slow", 0.009)

    estimates.learn_batch(["brief", "slow"], 0.02)

    assert estimates.expected("slow") == pytest.approx(0.0135)
    assert estimates.expected("brief") == pytest.approx(0.0015)


def test_the_time_of_a_batch_with_an_unknown_signal_is_divided_equally(estimates: RuntimeEstimates):
    """The part of each is not known."""
    estimates.learn("known", 0.01)
    estimates.learn_batch(["known", "new", "new"], 0.03)
    assert estimates.expected("new") == pytest.approx(0.01)


def test_an_empty_batch_changes_no_estimate(estimates: RuntimeEstimates):
    """A message without texts is an example."""
    estimates.learn_batch([], 1.0)
    assert estimates.expected(None) == math.inf


def test_the_number_of_estimates_is_limited(estimates: RuntimeEstimates, monkeypatch):
    """Anybody who can write to the broker can invent names; the oldest is forgotten."""
    monkeypatch.setattr(module, "MOST", 3)
    for name in "abcd":
        estimates.learn(name, 0.1)
    assert [estimates.expected(name) for name in "abcd"] == [math.inf, 0.1, 0.1, 0.1]

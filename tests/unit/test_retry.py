"""The retry policy decides, from the attempt and the error, the delay, or that there is no further attempt."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from signalbus import Reject, Retry, RetryLater
from signalbus.exceptions import ConfigurationError

STEADY = Retry(jitter=False)
ERROR = ValueError("no luck")


def delays(retry, spread=0.5):
    """Return all delays of a delivery that never succeeds."""
    found, attempt = [], 1
    while (delay := retry.delay(attempt, ERROR, spread=spread)) is not None:
        found.append(delay)
        attempt += 1
    return found


def test_delays_double_up_to_the_longest():
    """Each delay is twice the one before, until the limit."""
    assert delays(STEADY)[:10] == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600]


def test_twenty_attempts_take_about_two_hours():
    """The default is long enough for a deploy, and short enough for a day's list of failures."""
    assert len(delays(STEADY)) == 19
    assert 1.5 * 3600 < sum(delays(STEADY)) < 2.5 * 3600
    assert 1.5 * 3600 < sum(delays(Retry(), spread=0.5)) < 2.5 * 3600


@pytest.mark.parametrize("spread", [0.0, 0.25, 0.5, 0.999])
def test_jitter_spreads_around_the_delay_and_not_over_the_longest(spread):
    """A delay with jitter is between half and one and a half of itself, and below the limit."""
    jittered, steady = delays(Retry(), spread), delays(STEADY)
    assert all(0.5 * right <= left <= min(600, 1.5 * right) for left, right in zip(jittered, steady, strict=True))


def test_max_attempts_counts_the_first_run():
    """There is no delay after the last attempt."""
    assert Retry(max_attempts=1).delay(1, ERROR) is None
    assert Retry(max_attempts=3).delay(2, ERROR) is not None
    assert Retry(max_attempts=3).delay(3, ERROR) is None


def test_a_rejection_is_dead_at_once():
    """``Reject`` ends a delivery with any policy."""
    assert STEADY.delay(1, Reject("no such plan")) is None


@pytest.mark.parametrize("asked", [90, timedelta(seconds=90)])
def test_retry_later_sets_the_delay(asked):
    """The delay has no jitter, and may be over the longest delay of the policy."""
    assert Retry(max_delay=10).delay(1, RetryLater(asked)) == 90


def test_retry_later_counts_as_an_attempt():
    """A receiver cannot postpone itself for ever."""
    assert Retry(max_attempts=2).delay(2, RetryLater(1)) is None


@pytest.mark.parametrize("asked", [-5, -math.inf, math.inf, math.nan, 1e300])
def test_an_extreme_delay_is_limited(asked):
    """A database must be able to store the date."""
    delay = STEADY.delay(1, RetryLater(asked))
    assert delay is not None
    assert 0 <= delay <= 366 * 24 * 3600


def test_a_thousandth_attempt_has_a_delay():
    """A delivery may be retried by hand again and again."""
    assert Retry(max_attempts=5000, jitter=False).delay(4000, ERROR) == 600


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": 2.5},
        {"max_attempts": "5"},
        {"base_delay": -1},
        {"max_delay": math.nan},
        {"max_delay": math.inf},
        {"base_delay": None},
    ],
)
def test_an_invalid_policy_is_refused(wrong):
    """The error names the value and says what is allowed."""
    with pytest.raises(ConfigurationError, match="at least 1; delays are seconds"):
        Retry(**wrong)


def test_a_policy_is_a_value():
    """Two policies of the same numbers are equal, and immutable."""
    assert Retry(max_attempts=3) == Retry(max_attempts=3)
    with pytest.raises(AttributeError):
        STEADY.max_attempts = 5  # type: ignore[misc]

"""The options of a signal for messages that are not needed twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from signalbus import Signal
from signalbus.exceptions import ConfigurationError
from signalbus.sending.deduplication import Deduplication


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"unique": "slug", "durable": False}, "durable=True"),
        ({"debounce": 30, "durable": False}, "durable=True"),
        ({"unique": ""}, "a key of the payload"),
        ({"unique": 3}, "a key of the payload"),
        ({"max_wait": 30}, "give debounce="),
        ({"debounce": 0}, "more than 0"),
        ({"debounce": True}, "more than 0"),
        ({"debounce": 30, "max_wait": 20}, "less than"),
        ({"debounce": 30, "ordered_by": "slug"}, "ordered_by="),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, Any], remedy: str):
    """The declaration raises, with the remedy."""
    with pytest.raises(ConfigurationError, match=remedy):
        Signal("tests.refused", **options)


def test_max_wait_has_a_default():
    """A burst ends after ten times ``debounce``."""
    signal = Signal("tests.debounced", debounce=timedelta(seconds=3))

    assert signal.deduplication == Deduplication(debounce=3.0, max_wait=30.0)


def test_a_signal_without_these_options_has_no_deduplication():
    """A send of such a signal has nothing to check."""
    assert Signal("tests.plain").deduplication is None

"""What a signal may say of messages that are not needed twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from signalbus import Signal
from signalbus.exceptions import ConfigurationError
from signalbus.sending.deduplication import Once


@pytest.mark.parametrize(
    ("options", "cure"),
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
def test_what_nobody_could_keep_to_is_refused(options: dict[str, Any], cure: str):
    """Options that mean nothing are refused where the signal is declared, with the cure."""
    with pytest.raises(ConfigurationError, match=cure):
        Signal("tests.refused", **options)


def test_a_burst_has_an_end_if_nothing_is_said():
    """Without max_wait a burst is ended after ten pauses: nothing waits for ever."""
    signal = Signal("tests.debounced", debounce=timedelta(seconds=3))

    assert signal.once == Once(debounce=3.0, max_wait=30.0)


def test_a_plain_signal_says_nothing():
    """Without these options there is nothing to look at when it is sent."""
    assert Signal("tests.plain").once is None

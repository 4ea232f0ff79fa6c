"""What the unit tests share."""

from __future__ import annotations

import pytest

from signalbus.registry import registry


@pytest.fixture(autouse=True)
def registry_as_it_was():
    """Forget the signals that a test made in a function: Django keeps them for as long as their receivers live."""
    before = set(registry._signals)
    yield
    for number, signal in list(registry._signals.items()):
        if number not in before and not signal._at_top and signal._attribute is None:
            del registry._signals[number]
    registry._by_name.clear()
    registry.renamed()

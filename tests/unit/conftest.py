"""What the unit tests share."""

from __future__ import annotations

import pytest

from signalbus.sending import bridge
from tests.fixtures import registry_as_it_was

__all__ = ["registry_as_it_was"]


@pytest.fixture
def bridges_as_they_were():
    """Take down the bridges that a test built."""
    before = {key: receivers_of(built) for key, built in bridge._bridges.items()}
    yield
    for key, built in list(bridge._bridges.items()):
        if receivers_of(built) - before.get(key, set()) or key not in before:
            built.source.disconnect(built, sender=built.sender)
            del bridge._bridges[key]


def receivers_of(built):
    """Return the keys of what is connected to a bridge: another test's, whose receivers have gone, may still stand."""
    return {entry[0] for entry in built.receivers}

"""Fixtures of the unit tests."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

from signalbus.bridging import bridge
from tests.fixtures import registry_as_it_was

__all__ = ["registry_as_it_was"]

# `make unit` uses this profile; `make test`, the matrix and CI use Hypothesis' default of 100 examples.
settings.register_profile("quick", max_examples=15)


def pytest_collection_finish() -> None:
    """Exempt what the imports made from garbage collection, so that a test's `gc.collect()` takes little time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def restored_bridges():
    """Remove the bridges that a test built."""
    before = {key: receivers_of(built) for key, built in bridge._bridges.items()}
    yield
    for key, built in list(bridge._bridges.items()):
        if receivers_of(built) - before.get(key, set()) or key not in before:
            built.source.disconnect(built, sender=built.sender)
            del bridge._bridges[key]


def receivers_of(built):
    """Return the keys of the receivers of a bridge, which may include collected ones of another test."""
    return {entry[0] for entry in built.receivers}

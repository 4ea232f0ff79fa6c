"""Fixtures of the unit tests."""

from __future__ import annotations

import gc
import importlib
import sys

import pytest
from hypothesis import HealthCheck, settings

from signalbus.bridging import bridge
from tests.fixtures import registry_as_it_was

__all__ = ["registry_as_it_was"]

# No example fails because the machine is slow. `make unit` uses the quick profile; `make test`, the matrix and CI use
# Hypothesis' default of 100 examples.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("patient"), max_examples=15)
settings.load_profile("patient")


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


SHOP_CONFIG = "from django.apps import AppConfig\nclass Shop(AppConfig):\n    name, label = 'the_shop', 'shop'\n"


@pytest.fixture
def install_shop(tmp_path, monkeypatch, settings):
    """Install the app `the_shop` with modules of the given texts; `a__in__b` is the module b in the package a."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])

    def install(**files):
        folder = tmp_path / "the_shop"
        folder.mkdir()
        for name, text in {"__init__": "", "apps": SHOP_CONFIG, **files}.items():
            path = folder / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "the_shop"]
        return folder

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "the_shop"]:
        del sys.modules[name]


def receivers_of(built):
    """Return the keys of the receivers of a bridge, which may include collected ones of another test."""
    return {entry[0] for entry in built.receivers}

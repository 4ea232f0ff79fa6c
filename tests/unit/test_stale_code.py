"""Under DEBUG a worker says that it runs old code; a developer forgets to restart it."""

from __future__ import annotations

import importlib
import json
import os
import sys

import pytest

from signalbus.core.own_code import is_own_code, own_modules
from signalbus.receiving.sweeping import stale_code, sweeper
from signalbus.receiving.sweeping.stale_code import StaleCode
from signalbus.receiving.sweeping.sweeper import Sweeper
from tests.servers import wait_until


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import a module of the project; return its file."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "the_receivers.py"
    file.write_text("x = 1")
    importlib.import_module("the_receivers")
    yield file
    del sys.modules["the_receivers"]


def edit(file):
    """Change a file as an editor does."""
    before = file.stat().st_mtime_ns
    file.write_text("x = 2")
    os.utime(file, ns=(before + 1_000_000, before + 1_000_000))


def warnings(caplog):
    """Return what was warned of."""
    return [record.getMessage() for record in caplog.records if record.name == "signalbus"]


def test_a_changed_file_is_reported_once(module, caplog, monkeypatch):
    """After each change, and not after each look."""
    monkeypatch.setattr(stale_code, "LOOK_SECONDS", 0.0)
    watch = StaleCode()
    watch.tell()
    assert warnings(caplog) == []
    for times in (1, 2):
        edit(module)
        watch.tell()
        watch.tell()
        assert len(warnings(caplog)) == times
    assert f"still runs the old code of {module}, which changed after it started: restart it" in warnings(caplog)[0]


def test_an_older_file_in_its_place_is_a_change_too(module, caplog):
    """As after a checkout of another branch."""
    watch = StaleCode()
    os.utime(module, ns=(1, 1))
    assert watch.changed() == [str(module)]


def test_a_file_that_is_missing_for_a_moment_is_checked_again(module):
    """Some editors write another file, and put that in its place."""
    watch = StaleCode()
    text = module.read_text()
    module.unlink()
    assert watch.changed() == []
    module.write_text(text)
    edit(module)
    assert watch.changed() == [str(module)]


def test_a_module_that_is_imported_later_has_not_changed(module, tmp_path):
    """A receiver may import what it needs when it runs."""
    watch = StaleCode()
    (tmp_path / "the_helper.py").write_text("x = 1")
    importlib.invalidate_caches()
    importlib.import_module("the_helper")
    try:
        assert watch.changed() == []
        edit(tmp_path / "the_helper.py")
        assert watch.changed() == [str(tmp_path / "the_helper.py")]
    finally:
        del sys.modules["the_helper"]


def test_files_are_checked_every_few_seconds(module, caplog):
    """However often a sweeper asks."""
    watch = StaleCode()
    watch.tell()
    edit(module)
    watch.tell()
    assert warnings(caplog) == []


def test_only_the_projects_own_code_is_checked(module):
    """Nobody edits Python, signalbus or what pip installed."""
    assert str(module) in own_modules()
    for other in (json.__file__, pytest.__file__, stale_code.__file__, "<string>"):
        assert not is_own_code(other)


@pytest.mark.parametrize("debug", [True, False])
def test_the_sweeper_checks_files_only_with_debug(module, caplog, settings, monkeypatch, debug):
    """In production code is deployed, and each worker started again."""
    settings.DEBUG = debug
    swept = []
    monkeypatch.setattr(stale_code, "LOOK_SECONDS", 0.0)

    def sweep(self):
        swept.append(1)
        return 0.01

    monkeypatch.setattr(Sweeper, "_sweep", sweep)
    monkeypatch.setattr(sweeper, "close_connections", lambda: None)
    thread = Sweeper(0.01)
    thread.start()
    try:
        edit(module)
        before = len(swept)
        wait_until(lambda: len(swept) > before + 2, what="two rounds")
    finally:
        thread.stop()
        thread.join(10)
    assert len(warnings(caplog)) == debug

"""Django's autoreloader, as `signalbus dev` uses it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from signalbus.compat.django_autoreload import ProjectReloader, own_command_line

if TYPE_CHECKING:
    from pathlib import Path


def test_a_changed_file_is_reported_and_ends_no_process(tmp_path: Path, monkeypatch):
    """The reloader calls our function for a file of a watched folder, and goes on watching."""
    monkeypatch.setattr(ProjectReloader, "SLEEP_TIME", 0)
    receivers, other = tmp_path / "receivers.py", tmp_path / "notes.txt"
    receivers.touch()
    other.touch()
    changed: list[Path] = []
    reloader = ProjectReloader(changed.append)
    reloader.add_folders([tmp_path])
    ticker = reloader.tick()
    next(ticker)

    for path in (receivers, other):
        os.utime(path, (2_000_000_000, 2_000_000_000))
    next(ticker)
    next(ticker)

    assert changed == [receivers]


def test_folders_can_be_added_while_watching(tmp_path: Path):
    """The folders that a worker reports are watched from then on."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "models.py").touch()
    reloader = ProjectReloader(lambda _path: None)
    reloader.add_folders([old])
    watching = reloader.watched_files()
    assert next(watching) == old / "models.py"

    reloader.add_folders([new])

    assert list(watching) == []  # an iteration that has begun is not disturbed
    assert set(reloader.watched_files()) == {old / "models.py", new / "models.py"}


def test_own_command_line_starts_this_program(tmp_path: Path, monkeypatch):
    """The command line begins with this interpreter, and ends with this program's arguments."""
    program = tmp_path / "manage.py"  # pytest-xdist runs none
    program.touch()
    monkeypatch.setattr(sys, "argv", [str(program), "signalbus", "dev"])
    line = own_command_line()

    assert line[0] == sys.executable
    assert line[-2:] == ["signalbus", "dev"]

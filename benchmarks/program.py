"""A program that runs beside this process: its processes, its log, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.servers import CHECKOUT, ProcessWatcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PATIENCE = 20.0  # seconds that a program gets to end


class Program:
    """A module that Python runs as a program of its own.

    Args:
        words: of the command line, from the module's name on.
        directory: where its log goes.
        environment: what differs from ours.
    """

    def __init__(self, words: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        self.command = [sys.executable, "-m", *words]
        self.log_path = directory / "log"
        self.environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a process group of its own."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=CHECKOUT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watcher = ProcessWatcher(-self._process.pid)

    @property
    def pid(self) -> int | None:
        """Its main process; None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> str:
        """Return its output."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self, *, gently: bool = True) -> None:
        """End it, and what is left of its process group.

        Args:
            gently: ask first.
        """
        if self._process is None:
            return
        if gently and self.pid is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._watcher.release()
        self._process = None

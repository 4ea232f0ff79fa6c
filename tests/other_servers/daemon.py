"""A server process of the tests' own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import ProcessWatcher, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Daemon:
    """A process with a temporary folder, which ``kill`` keeps for the next ``start``.

    Args:
        name: what the folder and messages call it.
        parent: the folder that the process's own one is made in; None for the system's.
    """

    def __init__(self, name: str, parent: Path | None = None) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"signalbus-{name}-", dir=parent))
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: ProcessWatcher | None = None

    @property
    def pid(self) -> int | None:
        """The process's id; None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log(self) -> str:
        """What it has written since the last start."""
        path = self.directory / "output.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(
        self,
        command: Sequence[str],
        ready: Callable[[], object],
        environment: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Start it, and wait until it is ready.

        Args:
            command: the command line.
            ready: asked until its answer is true.
            environment: what differs from this process's environment.
            timeout: seconds.

        Raises:
            AssertionError: it was not ready in time, or ended; with what it wrote.
        """
        assert self.pid is None, f"{self.name} runs already"
        with (self.directory / "output.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Its whole group: a server may have helpers.
        self._watcher = ProcessWatcher(-self._process.pid)

        def lives_and_is_ready() -> object:
            assert self.pid is not None, f"{self.name} ended:\n{self.log}"
            return ready()

        try:
            wait_until(lives_and_is_ready, timeout, f"{self.name} to be ready")
        except AssertionError as error:
            error.add_note(self.log)
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a crash would; what is in its folder stays."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        assert self._watcher is not None
        self._watcher.release()

    def stop(self) -> None:
        """End it, and remove its folder."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

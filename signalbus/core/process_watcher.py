"""End the processes that this one started when this one is gone, even if it was killed.

Used by the embedded server and by ``manage.py signalbus dev``.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Reads until the process that started it is gone, however that died: its end of the pipe closes with it.
WATCHER = 'read -r _; kill -s KILL -- "$1"; shift; [ $# -eq 0 ] || rm -rf -- "$@"'


class ProcessWatcher:
    """A process that ends others, and removes their files, once this one is gone.

    Args:
        target: as ``kill`` takes it: a process, or a process group with a minus before it.
        files: the files and folders that it removes.
    """

    def __init__(self, target: int, *files: Path) -> None:
        self._watcher = subprocess.Popen(  # noqa: S603 - a fixed command
            ["/bin/sh", "-c", WATCHER, "watcher", str(target), *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """Let the processes and the files be."""
        # Killed before its pipe closes, so that it does not take its turn.
        self._watcher.kill()
        self._watcher.communicate()

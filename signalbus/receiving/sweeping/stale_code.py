"""Warn that the project's source files have changed since this worker imported them.

A worker runs the code that it imported when it started. A developer who changes a receiver and forgets to restart the
worker sees the old code run, without a warning. The sweeper calls this under ``DEBUG`` only: production code is not
edited.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from signalbus.core.own_code import own_modules

logger: logging.Logger = logging.getLogger("signalbus")

LOOK_SECONDS = 2.0  # between two looks; one reads the time of change of each file


class StaleCode:
    """The times at which the source files of this process were changed last."""

    def __init__(self) -> None:
        self._changed_at: dict[str, int] = {}
        self._next_at = 0.0
        self.changed()

    def tell(self) -> None:
        """Warn of the files that have changed since the last look, if it was some time ago."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + LOOK_SECONDS
        changed = self.changed()
        if changed:
            logger.warning(
                "signalbus: this worker still runs the old code of %s, which changed after it started: restart it.",
                ", ".join(changed),
            )

    def changed(self) -> list[str]:
        """Return the files that have changed since the last look, sorted; none that is seen for the first time."""
        changed = []
        for file in own_modules():
            try:
                at = Path(file).stat().st_mtime_ns
            except OSError:  # an editor may be about to replace it
                continue
            if self._changed_at.setdefault(file, at) != at:
                self._changed_at[file] = at
                changed.append(file)
        return sorted(changed)

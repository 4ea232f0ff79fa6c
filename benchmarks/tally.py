"""Counts completions in whatever threads and processes a worker has, at the same price on every side.

Each completion is one short record at the end of one file in memory: the kernel puts one behind the other, so that
none is lost, as counters would lose some between two threads or with a process that ends.
"""

from __future__ import annotations

import os
import struct
import time
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_RECORD = struct.Struct("dd")  # when it was done, and when it had been sent; both by the clock that all processes share


@cache
def _file() -> int:
    return os.open(os.environ["BENCH_TALLY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def tally(sent: float = 0.0) -> None:
    """Note one completion.

    Args:
        sent: when it was sent, by ``time.monotonic``; where that is of interest.
    """
    os.write(_file(), _RECORD.pack(time.monotonic(), sent))


class Tally:
    """What was counted into a file.

    Args:
        path: the file, which BENCH_TALLY names to those who count.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def __len__(self) -> int:
        return self.path.stat().st_size // _RECORD.size

    def _records(self) -> list[tuple[float, float]]:
        return list(_RECORD.iter_unpack(self.path.read_bytes()))

    def seconds(self) -> float:
        """Return the time from the first completion to the last."""
        times = [done for done, _ in self._records()]
        return max(times) - min(times)

    def delays(self) -> list[float]:
        """Return the seconds that each took from being sent, of those that told."""
        return [done - sent for done, sent in self._records() if sent]

    def reset(self) -> None:
        """Begin from zero."""
        os.truncate(self.path, 0)

"""Counts completions in any threads and processes of a worker, at the same cost on every side.

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
    """Record one completion.

    Args:
        sent: when it was sent, by ``time.monotonic``; where that is of interest.
    """
    os.write(_file(), _RECORD.pack(time.monotonic(), sent))


class Tally:
    """The counts in a file.

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
        """Return the seconds between sending and completion of each message that recorded it."""
        return [done - sent for done, sent in self._records() if sent]

    def reset(self) -> None:
        """Begin again at zero."""
        os.truncate(self.path, 0)

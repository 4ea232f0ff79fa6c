"""Counts completions in a worker's processes, for the same microsecond on both sides: a file in memory for each."""

from __future__ import annotations

import mmap
import os
import struct
import time
from functools import lru_cache
from pathlib import Path

_RECORD = struct.Struct("qdd")  # how many, when the first, when the last


@lru_cache(maxsize=2)
def _memory(pid: int) -> mmap.mmap:
    path = Path(os.environ["BENCH_TALLY"]) / str(pid)
    path.write_bytes(bytes(_RECORD.size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _RECORD.size)


def tally() -> None:
    """Count one completion in this process."""
    memory = _memory(os.getpid())
    count, first, _ = _RECORD.unpack_from(memory)
    now = time.monotonic()
    _RECORD.pack_into(memory, 0, count + 1, first or now, now)


def read(directory: Path) -> tuple[int, float]:
    """Add up what the processes have counted.

    Args:
        directory: the one that BENCH_TALLY names to them.

    Returns:
        How many completions, and the seconds from the first to the last.
    """
    records = [_RECORD.unpack(data) for path in directory.iterdir() if len(data := path.read_bytes()) == _RECORD.size]
    counted = [record for record in records if record[0]]
    if not counted:
        return 0, 0.0
    return sum(record[0] for record in counted), max(r[2] for r in counted) - min(r[1] for r in counted)


def reset(directory: Path) -> None:
    """Let the processes count from zero; nothing may be running in them."""
    for path in directory.iterdir():
        with path.open("r+b") as file:
            file.write(bytes(_RECORD.size))

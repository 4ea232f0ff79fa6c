"""Measures processes by the operating system's counts: whole trees of them, and children that have ended."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from collections.abc import Iterator


def _tree(pid: int) -> Iterator[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)


def cpu_seconds(*pids: int) -> float:
    """Return the processor time that processes and their descendants have used.

    Args:
        pids: of the roots.
    """
    total = 0.0
    for pid in pids:
        for process in _tree(pid):
            with suppress(psutil.NoSuchProcess):  # it has ended just now: its parent's count has it
                ended = process.cpu_times()
                total += _clock(process.pid) + ended.children_user + ended.children_system
    return total


def _clock(pid: int) -> float:
    """Return the time of a process by its own clock, because /proc counts in steps of 10 ms."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) of Linux makes it: all of its threads
    except OSError as error:  # it has ended
        raise psutil.NoSuchProcess(pid) from error


def peak_memory(pid: int) -> float:
    """Return the largest memory that a process has ever had, in MB.

    Args:
        pid: of the process; its children do not count.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]
    return int(kilobytes) / 1024

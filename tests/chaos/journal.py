"""The journal of the processes under test: an append-only file with a line for each fact.

A line goes to the kernel in one write, so that killing its writer tears nothing: it is there, or it is not. Times are
``time.monotonic()``, which on Linux is one clock for all processes of the machine, and which no fault moves.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Journal:
    """A writer of facts.

    Args:
        path: the file; several processes may share it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_APPEND | os.O_WRONLY | os.O_CREAT, 0o644)

    def note(self, fact: str, *details: object) -> None:
        """Write a line: the fact, the time, the details."""
        words = [fact, f"{time.monotonic():.6f}", *(" ".join(str(detail).split()) or "-" for detail in details)]
        os.write(self._file, ("\t".join(words) + "\n").encode())


@dataclass(slots=True)
class Notes:
    """The contents of a journal, by fact.

    Args:
        sent: message to (kind, time): ``send()`` returned, and nothing is committed yet.
        acknowledged: message to the time of its commit's return.
        rolled_back: messages whose transaction was rolled back on purpose.
        waits: seconds from the begin of a transaction to its end, each.
        raised: what ``send()`` or the commit said.
        runs: (message, receiver), once for each time a receiver was entered.
    """

    sent: dict[str, tuple[str, float]] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)
    rolled_back: set[str] = field(default_factory=set)
    waits: list[float] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    runs: list[tuple[str, str]] = field(default_factory=list)


def read(path: Path) -> Notes:
    """Read a journal, which may be written to meanwhile.

    Args:
        path: the file; one that is not there holds nothing.

    Raises:
        ValueError: a line of an unknown form.
    """
    notes = Notes()
    text = path.read_text() if path.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        match line.split("\t"):
            case ["sent", at, message, kind]:
                notes.sent[message] = (kind, float(at))
            case ["acknowledged", at, message]:
                notes.acknowledged[message] = float(at)
            case ["rolled back", _, message]:
                notes.rolled_back.add(message)
            case ["waited", _, seconds]:
                notes.waits.append(float(seconds))
            case ["raised", _, error]:
                notes.raised.append(error)
            case ["ran", _, message, receiver]:
                notes.runs.append((message, receiver))
            case _:
                raise ValueError(f"a line of {path} that nobody writes: {line!r}")
    return notes

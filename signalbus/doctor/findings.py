"""A finding: what was looked at, whether it is well, and what to do if it is not."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """A judged precondition.

    Args:
        name: what was looked at; the same in each version, for programs.
        level: whether it is well. A problem breaks a promise now; a warning may do so.
        text: what was found, as a sentence.
        remedy: what to do; empty if it is well.
    """

    name: str
    level: Level
    text: str
    remedy: str = ""


def ok(name: str, text: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(name, "ok", text)


def warning(name: str, text: str, remedy: str) -> Finding:
    """Return a finding of what may break a promise."""
    return Finding(name, "warning", text, remedy)


def problem(name: str, text: str, remedy: str) -> Finding:
    """Return a finding of what breaks a promise."""
    return Finding(name, "problem", text, remedy)


def duration(seconds: float) -> str:
    """Return a time span in words, in its largest unit, as "3 min".

    Args:
        seconds: the time.
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

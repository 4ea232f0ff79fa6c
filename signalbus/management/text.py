"""Format what the commands print (a text on one line, times in UTC), and read an option that several take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from signalbus.core.printable_text import printable
from signalbus.ledger import operations as ledger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

LONGEST = 200  # characters: a line or two of a terminal


def one_line(text: str) -> str:
    """Return a text on one line without control characters: a stranger's escapes must not paint the terminal.

    Args:
        text: any text, as an error's.
    """
    return printable(text, LONGEST)


def time_of(moment: datetime | None) -> str:
    """Return a time of the ledger in UTC, to the second; a dash for none."""
    return "-" if moment is None else ledger.in_utc(moment, ledger.using()).strftime("%Y-%m-%d %H:%M:%S")


def span_of(span: timedelta) -> str:
    """Return a duration in minutes and seconds; a negative one as none."""
    seconds = max(0, int(span.total_seconds()))
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def iso(moment: datetime | None) -> str | None:
    """Return a time of the ledger in UTC, for programs."""
    return None if moment is None else ledger.in_utc(moment, ledger.using()).isoformat()


def limit_of(options: Mapping[str, Any]) -> int | None:
    """Return the option ``--limit``; None if it is not given.

    Args:
        options: the options of a command.

    Raises:
        CommandError: it is below 1.
    """
    limit: int | None = options["limit"]
    if limit is not None and limit < 1:
        raise CommandError(f"--limit is {limit}; it must be at least 1.")
    return limit

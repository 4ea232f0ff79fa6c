"""Make the texts of the ledger fit for a page: on one line, of a limited length, without characters that repaint it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from signalbus.core.printable_text import printable

if TYPE_CHECKING:
    from signalbus.models import Delivery

NAME_CHARS: Final = 120  # of a name or an error, in a list
TEXT_CHARS: Final = 20_000  # of an error or a traceback, on a page of its own
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def short(text: str) -> str:
    """Return a text for a list: on one line, at most 120 characters.

    Args:
        text: any text, as an error's.
    """
    return printable(text, NAME_CHARS)


def lines_of(text: str) -> str:
    """Return a text of several lines, each of them harmless; an ellipsis says that there was more.

    Args:
        text: any text, as a traceback; at most 20,000 characters of it are shown.
    """
    lines = "\n".join(map(printable, text[:TEXT_CHARS].splitlines()))
    return f"{lines}…" if len(text) > TEXT_CHARS else lines


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, as "9 min"."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def receiver_of(delivery: Delivery) -> str:
    """Return the receiver of a delivery for people; one without is the whole message."""
    return short(delivery.receiver) or "(whoever listens)"


def signal_of(name: str) -> str:
    """Return a signal's name for people; a text that was not verified has none."""
    return short(name) or "(unopened text)"

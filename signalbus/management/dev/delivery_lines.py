"""Write a line for each delivery that ends, with the traceback of a failure; a listener for the worker of ``dev``."""

from __future__ import annotations

import traceback
from datetime import datetime
from typing import TYPE_CHECKING, Final

from signalbus import events
from signalbus.core.printable_text import printable
from signalbus.exceptions import MissingRow, RetryLater
from signalbus.receiving.invoking.runner import describe
from signalbus.receiving.settling.listeners import as_raised, log_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.core.management.color import Style

    from signalbus.events import Event, Kind

SHOWN: Final[tuple[Kind, ...]] = ("done", "failed", "dead", "skipped", "parked", "held", "refused")
COLOURS: Final[dict[str, str]] = {"done": "SUCCESS", "failed": "ERROR", "dead": "ERROR", "refused": "ERROR"}
REMEDIES: Final[dict[str, str]] = {
    "dead": "Run it again: manage.py signalbus retry {id}",
    "parked": "It is tried again by itself, and runs once the code knows it; manage.py signalbus failed lists it.",
    "held": "manage.py signalbus failed --state held lists it.",
    "skipped": "manage.py signalbus failed --state skipped lists it.",
    "refused": "No process with this project's SECRET_KEY has sent it; it is never run.",
}


class DeliveryLines:
    """A listener that writes what becomes of each delivery, in the place of the log's own lines.

    Args:
        write: writes a text and a line break.
        style: Django's, which colours what a terminal shows.
    """

    def __init__(self, write: Callable[[str], object], style: Style) -> None:
        self._write = write
        self._style = style

    def register(self) -> None:
        """Begin to write; call it before the worker has children."""
        events.unlisten(log_outcome)
        events.listen(*SHOWN)(self.tell)

    def tell(self, event: Event) -> None:
        """Write what became of a delivery.

        Args:
            event: what happened.
        """
        if event.kind == "done" and event.seconds is None:
            return  # an open message: its receivers have deliveries of their own
        colour = getattr(self._style, COLOURS.get(event.kind, "WARNING"))
        first, *rest = _lines(event)
        self._write("\n".join([f"{datetime.now().astimezone():%H:%M:%S}  {colour(first)}", *rest]))


def _lines(event: Event) -> Iterator[str]:
    delivery = event.delivery
    what = f"{delivery.signal} -> {delivery.receiver or '(whoever listens)'}" if delivery.signal else "a text"
    yield "  ".join([what, *filter(None, [_outcome(event), _runtime(event), _attempt(event)])])
    if isinstance(event.error, RetryLater) or (event.error is not None and event.kind not in {"failed", "dead"}):
        yield f"    {printable(describe(event.error))}"
    elif event.error is not None:
        text = "".join(traceback.format_exception(*(as_raised(event.error) or ())))
        yield from (f"    {printable(line)}" for line in text.splitlines())
    if event.kind == "skipped" and isinstance(event.error, MissingRow):
        yield '    If the receiver can do without the row, connect it with on_missing="snapshot".'
    if event.kind in REMEDIES:
        yield f"    {REMEDIES[event.kind].format(id=delivery.id)}"


def _outcome(event: Event) -> str:
    return "put off" if isinstance(event.error, RetryLater) and event.kind == "failed" else event.kind


def _runtime(event: Event) -> str:
    if event.seconds is None:
        return ""
    return f"{event.seconds * 1000:.0f} ms" if event.seconds < 1 else f"{event.seconds:.1f} s"


def _attempt(event: Event) -> str:
    attempt = f"attempt {event.delivery.attempt}" if event.delivery.attempt > 1 or event.kind == "failed" else ""
    return f"{attempt}, again in {event.delay:.1f} s" if event.kind == "failed" else attempt

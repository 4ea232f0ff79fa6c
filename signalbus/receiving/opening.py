"""From a queue's text to a message: verified first, then read; what cannot be opened is kept, and never run."""

from __future__ import annotations

import logging
import reprlib
from typing import TYPE_CHECKING

from signalbus import conf, ledger
from signalbus.exceptions import TextError, UnknownKey, UnknownVersion
from signalbus.receiving import lines
from signalbus.wire.marker import marker_from
from signalbus.wire.message import from_body

if TYPE_CHECKING:
    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")


def open_text(text: object, queue: str | None) -> Message | None:
    """Verify and parse a text; what cannot be opened is kept as the design says, and never run."""
    if isinstance(text, str) and "\x00" in text:
        # No signer writes one, and PostgreSQL could not keep it, whoever's key it names.
        refuse(text, "Garbage: it holds a NUL character", queue)
        return None
    try:
        body = conf.signer().verify(text)
        marker = marker_from(body)
        if marker is None:
            return from_body(body)
        lines.note("a marker", f"the queue {marker.queue or queue}", "taken note of")
        ledger.marker_returned(marker.queue, marker.marked_at)
    except UnknownKey as error:
        lines.note("a text", "", "parked")
        logger.warning("signalbus parks a text: %s", error)
        ledger.park_text(str(text), sealed=True, queue=queue, reason=str(error))
    except UnknownVersion as error:
        lines.note("a text", "", "parked")
        logger.warning("signalbus parks a text: %s", error)
        ledger.park_text(error.body, sealed=False, queue=queue, reason=str(error))
    except TextError as error:
        refuse(text, f"{type(error).__name__}: {error}", queue)
    return None


def refuse(text: object, reason: str, queue: str | None) -> None:
    # Not repr(): nested deep enough, its end is a RecursionError.
    shown = text if isinstance(text, str) else reprlib.repr(text)
    # The text is somebody else's: its repr keeps its line breaks from forging lines of a log.
    lines.note("a text", "", "refused")
    logger.error("signalbus refused a text (%s): %r", reason, shown[:200])
    ledger.refuse(shown, reason, queue)

"""Verify a text from a queue and read it as a message; park a text that cannot be read yet, refuse one that is forged.

`batch` calls it for each text. A text that was refused is recorded as dead, and no worker ever runs it. A marker is
noted here, and delivers nothing.
"""

from __future__ import annotations

import logging
import reprlib
from typing import TYPE_CHECKING

from signalbus import conf
from signalbus.events import Event, is_heard
from signalbus.exceptions import SignalBusError, TextError, UnknownKey, UnknownVersion
from signalbus.ledger import attempts as ledger
from signalbus.ledger import sweeps
from signalbus.models import State
from signalbus.receiving.process import task_log
from signalbus.receiving.process.worker_events import tell, worker_name
from signalbus.wire.marker import marker_from
from signalbus.wire.message import from_body

if TYPE_CHECKING:
    from uuid import UUID

    from signalbus.events import Kind
    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")


def verify_text(text: object, queue: str | None) -> Message | None:
    """Verify and parse a text; park or quarantine one that fails, and return None."""
    if isinstance(text, str) and "\x00" in text:
        # No signer writes one, and PostgreSQL could not store it, whichever key it names.
        refuse(text, "Garbage: it holds a NUL character", queue)
        return None
    try:
        body = conf.signer().verify(text)
        marker = marker_from(body)
        if marker is None:
            return from_body(body)
        task_log.note("a marker", f"the queue {marker.queue or queue}", "taken note of")
        sweeps.marker_returned(marker.queue, marker.marked_at)
    except UnknownKey as error:
        _park(str(text), error, queue, sealed=True)
    except UnknownVersion as error:
        _park(error.body, error, queue, sealed=False)
    except TextError as error:
        refuse(text, f"{type(error).__name__}: {error}", queue, error)
    return None


def _park(text: str, error: TextError, queue: str | None, *, sealed: bool) -> None:
    about = {"signalbus_event": "message.parked", "signalbus_error_type": type(error).__name__}
    logger.warning("signalbus parks a text: %s", error, extra=about)
    parked = ledger.park_text(text, sealed=sealed, queue=queue, reason=str(error))
    if parked.state == State.DEAD:
        logger.error("signalbus gave up a parked text, message %s: %s", parked.id, error)
        _tell("dead", parked.id, error)
    elif parked.state is not None:
        _tell("parked", parked.id, error)


def refuse(text: object, reason: str, queue: str | None, error: Exception | None = None) -> None:
    """Quarantine a text as a dead letter that no worker will ever run.

    Args:
        text: the text; any writer to the broker may have chosen it.
        reason: the reason of the refusal.
        queue: the queue that it came from.
        error: the exception, if there was one.
    """
    # Not repr(): nested deep enough, its end is a RecursionError.
    shown = text if isinstance(text, str) else reprlib.repr(text)
    # The text may be an attacker's: its repr keeps its line breaks from forging lines of a log.
    about = {"signalbus_event": "message.refused", "signalbus_error_type": type(error).__name__ if error else ""}
    logger.error("signalbus refused a text (%s): %r", reason, shown[:200], extra=about)
    refused = ledger.refuse(shown, reason, queue)
    error = error or SignalBusError(reason)
    _tell("refused", refused.id, error)
    if refused.state is not None:
        _tell("dead", refused.id, error)


def _tell(kind: Kind, message: UUID, error: Exception) -> None:
    if is_heard(kind):
        tell(Event(kind, ledger.delivery_of_text(message), error, worker=worker_name()))

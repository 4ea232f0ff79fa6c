"""What a worker tells of a delivery that ended: one line of a log, and an announcement for whoever listens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from signalbus.announcements import delivery_dead, delivery_failed
from signalbus.context import CurrentDelivery, running
from signalbus.exceptions import MissingRow, RetryLater
from signalbus.receiving import lines
from signalbus.receiving.session_state import end_changed_sessions

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from signalbus.receiving.runner import Outcome
    from signalbus.wire.message import Message

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

logger: logging.Logger = logging.getLogger("signalbus")

LIBRARIES = frozenset({"signalbus", "django", "asgiref", "asyncio", "concurrent", "contextlib"})  # before the receiver
SNAPSHOT = ' If the receiver can do without the row, connect it with on_missing="snapshot".'


def context_of(message: Message, recipient: str, attempt: int) -> CurrentDelivery:
    return CurrentDelivery(
        message_id=message.id,
        signal=message.signal,
        receiver=recipient,
        attempt=attempt,
        root=message.root,
        parent=message.parent,
        path=message.path,
    )


def announce(delivery: CurrentDelivery, outcome: Outcome) -> None:
    """Log an outcome once, and send it to whoever listens, as part of the delivery's lineage."""
    lines.note(delivery.signal, delivery.receiver, _in_words(outcome))
    _log(delivery, outcome)
    announcement: Callable[..., object]
    if outcome.kind == "dead":
        announcement = delivery_dead.send_robust
    elif outcome.kind == "failed":
        announcement = delivery_failed.send_robust
    else:
        return
    running(delivery, announcement, sender=delivery.signal, delivery=delivery, error=outcome.error)
    end_changed_sessions()  # what a listener sets is not the next receiver's either


def _in_words(outcome: Outcome) -> str:
    if outcome.kind != "failed":
        return outcome.kind
    return f"{'put off' if isinstance(outcome.error, RetryLater) else 'failed'}, again in {outcome.delay:.1f} s"


def _log(delivery: CurrentDelivery, outcome: Outcome) -> None:
    what = (delivery.signal, delivery.receiver or "(whoever listens)", delivery.id, delivery.attempt)
    if outcome.kind == "skipped":
        cure = SNAPSHOT if isinstance(outcome.error, MissingRow) else ""
        logger.warning("signalbus: %s to %s skipped (delivery %s, attempt %s): %s%s", *what, outcome.reason, cure)
    elif outcome.kind == "dead":
        logger.error("signalbus: %s to %s is dead (delivery %s, attempt %s)", *what, exc_info=_as_raised(outcome.error))
    elif isinstance(outcome.error, RetryLater):  # a wish, no error
        logger.info("signalbus: %s to %s (delivery %s, attempt %s) %s", *what, outcome.error)
    else:
        text = "signalbus: %s to %s failed (delivery %s, attempt %s), again in %.1f s"
        logger.error(text, *what, outcome.delay, exc_info=_as_raised(outcome.error))


def _as_raised(error: BaseException | None) -> ExcInfo | None:
    """Return what a logger takes for an error, with a traceback that begins in the receiver; whole if it never does."""
    if error is None:
        return None
    found = error.__traceback__
    while found is not None and found.tb_frame.f_globals.get("__name__", "").partition(".")[0] in LIBRARIES:
        found = found.tb_next
    return type(error), error, found or error.__traceback__

"""What a worker tells of a delivery that ended: one line of a log, and an announcement for whoever listens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from signalbus.announcements import delivery_dead, delivery_failed
from signalbus.context import CurrentDelivery, running
from signalbus.exceptions import MissingRow, RetryLater

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.receiving.runner import Outcome
    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")

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
    _log(delivery, outcome)
    announcement: Callable[..., object]
    if outcome.kind == "dead":
        announcement = delivery_dead.send_robust
    elif outcome.kind == "failed":
        announcement = delivery_failed.send_robust
    else:
        return
    running(delivery, announcement, sender=delivery.signal, delivery=delivery, error=outcome.error)


def _log(delivery: CurrentDelivery, outcome: Outcome) -> None:
    what = (delivery.signal, delivery.receiver or "(whoever listens)", delivery.id, delivery.attempt)
    if outcome.kind == "skipped":
        cure = SNAPSHOT if isinstance(outcome.error, MissingRow) else ""
        logger.warning("signalbus: %s to %s skipped (delivery %s, attempt %s): %s%s", *what, outcome.reason, cure)
    elif outcome.kind == "dead":
        logger.error("signalbus: %s to %s is dead (delivery %s, attempt %s)", *what, exc_info=outcome.error)
    elif isinstance(outcome.error, RetryLater):  # a wish, no error
        logger.info("signalbus: %s to %s (delivery %s, attempt %s) %s", *what, outcome.error)
    else:
        text = "signalbus: %s to %s failed (delivery %s, attempt %s), again in %.1f s"
        logger.error(text, *what, outcome.delay, exc_info=outcome.error)

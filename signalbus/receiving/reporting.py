"""What a worker tells of a delivery that ended: one line of a log, and an announcement for whoever listens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from signalbus.announcements import delivery_dead, delivery_failed
from signalbus.context import CurrentDelivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.receiving.runner import Outcome
    from signalbus.wire.message import Message

logger = logging.getLogger("signalbus")


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
    """Log an outcome once, and send it to whoever listens."""
    what = (delivery.signal, delivery.receiver, delivery.id, delivery.attempt)
    announcement: Callable[..., object]
    if outcome.kind == "skipped":
        logger.info("signalbus: %s to %s skipped (delivery %s, attempt %s): %s", *what, outcome.reason)
        return
    if outcome.kind == "dead":
        announcement = delivery_dead.send_robust
        logger.error("signalbus: %s to %s is dead (delivery %s, attempt %s)", *what, exc_info=outcome.error)
    else:
        announcement = delivery_failed.send_robust
        text = "signalbus: %s to %s failed (delivery %s, attempt %s), again in %.1f s"
        logger.error(text, *what, outcome.delay, exc_info=outcome.error)
    announcement(sender=delivery.signal, delivery=delivery, error=outcome.error)

"""What this worker does not know yet waits in the ledger, for a worker that does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from signalbus import ledger
from signalbus.context import delivery_of
from signalbus.events import Event
from signalbus.exceptions import SignalBusError
from signalbus.receiving import lines
from signalbus.receiving.reporting import tell, worker_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")

RESTART = ". Restart this worker, if its code is older than the sender's."


def park(message: Message, receivers: Sequence[str], queue: str | None, reason: str) -> None:
    """Park deliveries, and tell of those whose day is over."""
    for receiver in receivers:
        lines.note(message.signal, receiver, "parked")
    logger.warning("signalbus parks message %s: %s%s", message.id, reason, RESTART)
    for receiver in ledger.park(message, receivers, queue, reason):
        error = SignalBusError(f"given up: {reason}")
        tell(Event("dead", delivery_of(message, receiver, 0), error, worker=worker_name()))

"""Park deliveries whose signal, receiver or class this worker does not know, for a worker with newer code.

`routing/resolution` and `outcome` call it (decision 0003). Texts that cannot even be read are parked by
`routing/verification`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from signalbus.context import delivery_of
from signalbus.events import Event, is_heard
from signalbus.exceptions import SignalBusError
from signalbus.ledger import attempts as ledger
from signalbus.models import State
from signalbus.receiving.process.worker_events import tell, worker_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.events import Kind
    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")

RESTART = ". Restart this worker, if its code is older than the sender's."


def park(message: Message, receivers: Sequence[str], queue: str | None, reason: str) -> None:
    """Park deliveries; those that have been parked for ``PARK_SECONDS`` are dead."""
    about = {
        "signalbus_event": "message.parked", "signalbus_signal": message.signal,
        "signalbus_message_id": str(message.id), "signalbus_root_id": str(message.root),
    }  # fmt: skip
    logger.warning("signalbus parks message %s: %s%s", message.id, reason, RESTART, extra=about)
    for receiver, state in ledger.park(message, receivers, queue, reason).items():
        kind: Kind = "dead" if state == State.DEAD else "parked"
        if is_heard(kind):
            error = SignalBusError(f"given up: {reason}" if kind == "dead" else reason)
            tell(Event(kind, delivery_of(message, receiver, 0), error, worker=worker_name()))

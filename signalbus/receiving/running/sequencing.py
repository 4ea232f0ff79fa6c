"""Run the deliveries of an ordering key in the order of their positions, whichever message the worker has received.

`attempt` asks it for the messages of an ordered signal (decision 0036). A message only says that its key may have
something to run: its key's head (`ledger/attempts/ordering`) is run, and after that the next one, while that is
short. A message whose head another worker runs is dropped: that worker looks for the next head after its commit, and
sees what was committed before the message was published.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from signalbus.broker import publisher
from signalbus.exceptions import SignalBusError
from signalbus.ledger import attempts as ledger
from signalbus.receiving.process import task_log
from signalbus.wire.message import from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")

KEY_SECONDS = 0.3  # after which a worker leaves the rest of a key to a free worker


def messages_in_turn(message: Message, recipient: str, queue: str | None) -> Iterator[Message]:
    """Yield the messages of an ordering key that may run now, in order, each after the run of the one before.

    Args:
        message: the message that the worker received, of an ordered signal.
        recipient: the receiver's id, as the message has it.
        queue: the queue of its receiver.
    """
    key, deadline = ledger.order_of(message, recipient), time.monotonic() + KEY_SECONDS
    last: UUID | None = None
    while (head := ledger.head(key)) is not None:
        # The same one again: it is locked, or did not succeed.
        if not head.ready or head.id == last:
            if last is None:
                task_log.note(message.signal, recipient, "left to the worker that runs its ordering key")
            return
        if last is not None and time.monotonic() > deadline:
            _pass_on(message, recipient, queue, key)
            return
        try:
            following = from_body(head.text)
        except SignalBusError as error:  # the sweeper parks or buries it
            logger.warning("signalbus leaves delivery %s, which holds back those after it: %s", head.id, error)
            return
        yield following.for_recipients([recipient], recorded=True)
        last = head.id
    if last is None:
        yield message  # done by now; or 0.1 kept it, which gave it no place


def _pass_on(message: Message, recipient: str, queue: str | None, key: str) -> None:
    """Publish the received message again, so that a free worker runs the rest of its ordering key."""
    try:
        publisher.publish(queue, [to_body(message.for_recipients([recipient]))])
    except publisher.PublishError as error:
        logger.warning("signalbus leaves the rest of an ordering key to the sweeper: %s", error)
        ledger.wake(key)

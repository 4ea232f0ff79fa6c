"""Put texts that have not begun back on their queue, so that a slow receiver before them does not delay them.

`batch` requeues the rest of a batch, `resolution` a message for its remaining recipients. The main process requeues
as well, through the transport: see `receiving/worker/stragglers`.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from signalbus import conf
from signalbus.broker import publisher
from signalbus.context import delivery_of
from signalbus.events import Event, is_heard
from signalbus.exceptions import TextError
from signalbus.ledger import sweeps as ledger
from signalbus.receiving.process import task_log
from signalbus.receiving.process.worker_events import tell, worker_name
from signalbus.receiving.routing.verification import verify_text
from signalbus.wire.message import delivery_id, from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")


def requeue_texts(queue: str | None, texts: Sequence[Any]) -> bool:
    """Requeue the rest of a batch, so that it does not occupy a worker for too long; return whether that worked."""
    for text in texts:
        if not isinstance(text, str):
            verify_text(text, queue)  # refuses it
    messages = _messages_in(texts)
    _mark_requeued(messages)
    try:
        publisher.publish_texts(queue, [text for text in texts if isinstance(text, str)])
    except publisher.PublishError as error:
        logger.warning("signalbus goes on with a batch past its time, because it cannot be given back: %s", error)
        return False
    task_log.note_requeued(texts)
    if is_heard("requeued"):
        for message in messages:
            for recipient in ("",) if message.recipients is None else message.recipients:
                tell(Event("requeued", delivery_of(message, recipient, 0), worker=worker_name()))
    return True


def _messages_in(texts: Sequence[Any]) -> list[Message]:
    messages = []
    for text in texts:
        with contextlib.suppress(TextError, TypeError):  # the worker that receives it refuses it
            messages.append(from_body(conf.signer().verify(text)))
    return messages


def _mark_requeued(messages: Sequence[Message]) -> None:
    """Record that deliveries are at the end of their queue; otherwise markers before them would prove them lost."""
    waiting = [
        delivery_id(message.id, recipient)
        for message in messages
        if message.recorded
        for recipient in message.recipients or ()
    ]
    if waiting:
        ledger.mark_requeued(waiting)


def requeue_for(message: Message, recipients: Sequence[str], queue: str | None) -> bool:
    """Requeue a message for its remaining recipients, so that a slow receiver does not delay them."""
    return requeue_texts(queue, [publisher.sign(to_body(message.for_recipients(recipients)))])

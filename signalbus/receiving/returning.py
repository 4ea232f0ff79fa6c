"""What a worker gives back to its queue, so that nothing slow keeps it from everybody else."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from signalbus.receiving.opening import open_text
from signalbus.sending import publisher
from signalbus.wire.message import to_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")


def returned(queue: str | None, texts: Sequence[Any]) -> bool:
    """Return the rest of a batch to the queue, so that one batch does not keep a worker from everybody else."""
    for text in texts:
        if not isinstance(text, str):
            open_text(text, queue)  # refuses it
    try:
        publisher.publish_texts(queue, [text for text in texts if isinstance(text, str)])
    except publisher.PublishError as error:
        logger.warning("signalbus goes on with a batch past its time, because it cannot be given back: %s", error)
        return False
    return True


def returned_rest(message: Message, recipients: Sequence[str], queue: str | None) -> bool:
    """Return a message to the queue for those it has not reached: a slow receiver must not use up another's time."""
    return returned(queue, [publisher.sign(to_body(replace(message, recipients=tuple(recipients))))])

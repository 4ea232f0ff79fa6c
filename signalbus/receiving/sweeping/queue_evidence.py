"""Ask the queues which published deliveries are lost: send markers and wait for them, or find a queue empty.

``manage.py signalbus audit`` calls it, and gives the evidence to `ledger/operations/ledger_audit`, which counts
(decision 0029).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from kombu.exceptions import ChannelError, OperationalError

from signalbus import celery
from signalbus.broker import publisher
from signalbus.ledger import operations as ledger
from signalbus.wire.marker import Marker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

logger: logging.Logger = logging.getLogger("signalbus")

POLL_SECONDS = 0.2
NO_QUEUE = "404"  # of AMQP, where it is the error's code, and of kombu for Redis, where it is the reply's


def ask_queues(patience: float) -> tuple[ledger.Evidence, list[str]]:
    """Send markers through the queues, and wait until they prove which published deliveries are lost.

    A worker returns the marker of each queue, and another one ten seconds later: a message that a worker had prefetched
    and not begun when the first came is not lost. A queue that is empty, and has no message in flight, needs no marker:
    so lost messages are found even if no worker runs.

    Args:
        patience: seconds to wait at most; with 0 no marker is sent.

    Returns:
        The evidence, and the queues that did not answer.
    """
    asked_at = time.monotonic()
    queues = ledger.waiting_queues() if patience else []
    empty = {queue for queue in queues if _is_empty(queue)}
    marked = ledger.mark_now([queue for queue in queues if queue not in empty])
    _send(marked.items())
    for age in _ages(asked_at, patience):
        decided = empty | ledger.proven(marked)
        if not ledger.undecided(queues, decided=decided, age=age):
            break
        _send((queue, marked_at) for queue, marked_at in ledger.mark() if queue in marked)  # the one that decides
    silent = sorted(set(marked) - ledger.proven(marked))
    open_ = ledger.undecided(silent, decided=(), age=time.monotonic() - asked_at)
    return ledger.Evidence(frozenset(empty), asked_at), open_


def _send(markers: Iterable[tuple[str, datetime]]) -> None:
    for queue, marked_at in markers:
        try:
            publisher.publish(queue or None, [Marker(queue, marked_at).to_body()])
        except publisher.PublishError as error:
            logger.warning("signalbus could not ask the queue %r: %s", queue or "default", error)


def _ages(asked_at: float, patience: float) -> Iterator[float]:
    while (age := time.monotonic() - asked_at) < patience:
        yield age
        time.sleep(POLL_SECONDS)


def _is_empty(queue: str) -> bool:
    """Return whether a queue is empty, and none of its messages is in flight; False if the broker does not tell."""
    app = celery.get_app()
    name = queue or celery.default_queue()
    with app.connection_for_read(transport_options=celery.transport_options(app)) as connection:
        errors: tuple[Any, ...] = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            channel: Any = connection.default_channel
            if connection.transport.driver_type == "redis" and channel.client.hlen(channel.unacked_key):
                return False  # messages in flight, of whichever queue, are there until they are acknowledged
            declared = channel.queue_declare(name, passive=True)
        except ChannelError as error:
            return NO_QUEUE in {str(error.code), str(error.reply_code)}
        except errors as error:
            logger.warning("signalbus cannot see what the queue %r holds: %s", name, error)
            return False
        told = connection.transport.driver_type in {"redis", "amqp"}
        return told and not declared.message_count and not declared.consumer_count

"""Report a worker's free capacity to the transport: which messages can begin, which run, and which never will.

`bootstrap` calls `claim`, which makes the worker claim from Redis. The transport (`transport/broker_claims.Work`)
knows no Celery, and asks this class.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from signalbus import conf
from signalbus.broker import publisher
from signalbus.celery import TASK_NAME
from signalbus.compat.pool_internals import (
    ACCEPT_SECONDS,
    is_prefork,
    requests,
    running,
    scheduled,
    taken,
    wait_until_accepted,
)
from signalbus.exceptions import TextError
from signalbus.registration.registry import registry
from signalbus.transport import kombu_transport
from signalbus.transport.broker_claims import Work
from signalbus.wire.message import from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")


def claim(worker: Any) -> None:
    """Make a worker claim its messages from Redis, if that is its broker, before it connects.

    Args:
        worker: Celery's worker, which has started its pool, and has a consumer.
    """
    consumer = worker.consumer
    if not kombu_transport.can_claim(worker.app.connection_for_read()):
        return
    if consumer.hub is None:
        logger.info("signalbus consumes as kombu does: the pool %s has no event loop to claim in", worker.pool_cls)
        return
    work = WorkersWork(worker)

    def connection_for_read(heartbeat: Any = None) -> Any:
        connection = worker.app.connection_for_read(heartbeat=heartbeat)
        kombu_transport.claim(connection, work)
        return consumer.ensure_connected(connection)

    consumer.connection_for_read = connection_for_read


class WorkersWork(Work):
    """The work of a Celery worker, as the transport asks for it.

    Args:
        worker: Celery's worker.
    """

    task = TASK_NAME

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._dropped: set[str] = set()  # what had a time to wait for when the connection was lost: Celery forgets it

    def free(self) -> int:
        """Return the number of free processes or threads of the pool."""
        slots = self._worker.max_concurrency or self._worker.pool.num_processes
        return int(slots) - taken()

    def in_flight(self) -> set[str]:
        """Return the delivery tags of messages that run, wait or are scheduled."""
        return requests()

    def for_some(self, text: str, indexes: Sequence[int], count: int) -> str | None:
        """Return a text for some of its recipients, signed anew; None if it has not as many recipients as given."""
        try:
            message = from_body(conf.signer().verify(text))
        except (TextError, TypeError):
            return None  # the worker that receives it refuses it
        recipients = _recipients(message)
        if len(recipients) != count:
            return None
        return publisher.sign(to_body(message.for_recipients([recipients[index] for index in indexes])))

    def given_up(self, tags: Collection[str]) -> set[str]:
        """Return those of some delivery tags that no child and no thread has begun or will begin.

        A message that has ended while the children reported is not among them: its acknowledgement waits for the event
        loop.
        """
        pool = self._worker.pool
        known, begun = requests(), running()
        if is_prefork(pool):
            wait_until_accepted(pool, ACCEPT_SECONDS)
        elif self._worker.blueprint.state == bootsteps.RUN:  # type: ignore[attr-defined]
            # A thread may have one in its queue, from which it cannot be removed.
            self._dropped = (self._dropped | scheduled()) & set(tags)
            return self._dropped - begun
        ended = known - requests()
        return set(tags) - begun - running() - ended


def _recipients(message: Message) -> tuple[str, ...]:
    """Return the recipients of a message; for an open message those that the children of this process resolve."""
    if message.recipients is not None:
        return message.recipients
    signal = registry.signal(message.signal)
    return () if signal is None else tuple(receiver.id for receiver in signal.matching(message.sender))

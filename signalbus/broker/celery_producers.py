"""Publish through Celery: kombu's producers, in a pool of our own whose waits all have a timeout (decision 0006).

`publisher` calls it for all brokers but Redis, and where the fast path cannot be used.
"""

from __future__ import annotations

import os
import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kombu.exceptions import LimitExceeded, OperationalError
from kombu.pools import ProducerPool

from signalbus import celery, conf
from signalbus.broker import envelope
from signalbus.compat.kombu_internals import abandon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery
    from kombu import Connection

POOL_SIZE = 10


def publish(app: Celery, queue: str, texts: Sequence[str]) -> None:
    """Publish one Celery message.

    Args:
        app: the app whose worker will consume it.
        queue: the queue's name.
        texts: signed texts.

    Raises:
        Exception: the error of the broker, or of the connection to it.
    """
    message = envelope.envelope(app, texts, str(uuid.uuid4()), envelope.tree_here(app)) | envelope.address(app, queue)
    pool = _pool(app, os.getpid())
    with pool.acquire(block=True, timeout=conf.get().CONNECT_TIMEOUT) as producer:
        try:
            envelope.publish(producer, message)
        except _errors_of(app) as error:
            if _is_timeout(error):
                # The broker may have accepted it: publishing again at once would only add a duplicate and another wait.
                abandon(producer.connection)  # which is closed on the way out
                raise
            # The broker had closed this pooled connection while it was idle: publish once more, on a new one.
            producer.connection.collect()
            producer.revive(producer.connection)
            envelope.publish(producer, message)


def forget(app: Celery) -> None:
    """Close this process's producers; the next publication opens new ones by the settings of that time.

    Args:
        app: the app of the producers.
    """
    if _pool.cache_info().currsize:
        _pool(app, os.getpid()).connections.force_close_all()
        _pool.cache_clear()


def _is_timeout(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TimeoutError) or type(seen).__name__ == "TimeoutError":
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@lru_cache(maxsize=4)
def _pool(app: Celery, pid: int) -> Any:  # noqa: ARG001 - a forked child must not write to its parent's sockets
    """Return this process's pool of producers; the host's own pool may wait for ever."""
    connection = app.connection_for_write(transport_options=celery.transport_options(app))
    return ProducerPool(connection.Pool(limit=POOL_SIZE), limit=POOL_SIZE)


@lru_cache(maxsize=4)
def _errors_of(app: Celery) -> tuple[type[BaseException], ...]:
    connection: Connection = app.connection_for_write()
    return (
        OperationalError,
        LimitExceeded,
        OSError,
        *connection.connection_errors,
        *connection.channel_errors,
        *connection.recoverable_connection_errors,
    )

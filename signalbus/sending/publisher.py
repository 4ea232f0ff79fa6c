"""From bodies to the broker: signs them, and is the only one who hands anything to Celery."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kombu.exceptions import LimitExceeded, OperationalError
from kombu.pools import ProducerPool

from signalbus import celery, conf
from signalbus.exceptions import SignalBusError
from signalbus.sending import envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery import Celery
    from kombu import Connection

MAX_TEXTS = 100  # in one Celery message: what a lost claim disturbs
MAX_BATCH_BYTES = 1024 * 1024
POOL_SIZE = 10


class PublishError(SignalBusError):
    """The broker did not take (all of) what was published.

    Args:
        unsent: the indexes of the bodies that it did not acknowledge.
        cause: what it said.
    """

    def __init__(self, unsent: range, cause: BaseException) -> None:
        super().__init__(
            f"The broker did not take {len(unsent)} message(s): {type(cause).__name__}: {cause}. Is CELERY_BROKER_URL "
            "right, and does the broker run?"
        )
        self.unsent = unsent


def publish(queue: str | None, bodies: Sequence[str]) -> None:
    """Sign bodies and publish them to a queue, as few Celery messages as the limits allow.

    Args:
        queue: the queue, or None for the default one.
        bodies: verified bodies, or bodies of our own.

    Raises:
        PublishError: some were not taken; it says which.
    """
    try:
        texts = [sign(body) for body in bodies]
    except SignalBusError as error:
        raise PublishError(range(len(bodies)), error) from error
    publish_texts(queue, texts)


def sign(body: str) -> str:
    """Make the text of a body, as `publish` does.

    Args:
        body: a verified body, or one of our own.

    Raises:
        TextError: no worker would open it.
    """
    return conf.signer().sign(body)


def publish_texts(queue: str | None, texts: Sequence[str]) -> None:
    """Publish texts as they are.

    Args:
        queue: the queue, or None for the default one.
        texts: signed texts.

    Raises:
        PublishError: some were not taken; it says which.
    """
    for start, end in _batches(texts):
        try:
            _hand_over(queue or celery.default_queue(), texts[start:end])
        except Exception as error:
            # Whatever it is (an app that cannot be imported, a host's own subclass of Task), what was sent is kept.
            raise PublishError(range(start, len(texts)), error) from error


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start, size = 0, 0
    for index, text in enumerate(texts):
        if index > start and (index - start == MAX_TEXTS or size + len(text) > MAX_BATCH_BYTES):
            yield start, index
            start, size = index, 0
        size += len(text)
    if texts:
        yield start, len(texts)


def _hand_over(queue: str, texts: Sequence[str]) -> None:
    app = celery.get_app()
    if app.conf.task_always_eager:
        app.tasks[celery.TASK_NAME].apply_async(args=(list(texts),))
        return
    message = envelope.envelope(app, texts) | envelope.address(app, queue)
    pool = _pool(app, os.getpid())
    with pool.acquire(block=True, timeout=conf.get().CONNECT_TIMEOUT) as producer:
        try:
            envelope.publish(producer, message)
        except _broker_errors() as error:
            if _is_timeout(error):
                # It may have been taken: publishing again at once would only add a duplicate and another wait.
                raise
            # A pooled connection that the broker closed while it was idle says so only now: once more, on a new one.
            producer.connection.collect()
            producer.revive(producer.connection)
            envelope.publish(producer, message)


def _is_timeout(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TimeoutError) or type(seen).__name__ == "TimeoutError":
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@lru_cache(maxsize=4)
def _pool(app: Celery, pid: int) -> Any:  # noqa: ARG001 - a forked child must not write to its parent's sockets
    """Return this process's producers, whose every wait has an end; the host's own pool may have none."""
    connection = app.connection_for_write(transport_options=transport_options(app))
    return ProducerPool(connection.Pool(limit=POOL_SIZE), limit=POOL_SIZE)


def transport_options(app: Celery) -> dict[str, Any]:
    """Return the options of a connection whose every wait has an end.

    Args:
        app: whose broker it is.
    """
    settings = conf.get()
    options = dict(app.conf.broker_transport_options or {})
    driver = app.connection_for_write().transport.driver_type
    if driver == "redis":
        options |= {
            "socket_timeout": settings.PUBLISH_TIMEOUT,
            "socket_connect_timeout": settings.CONNECT_TIMEOUT,
        }
        if "master_name" in options:
            options["sentinel_kwargs"] = _sentinel_options(options)
    elif driver == "amqp":
        options |= {
            "read_timeout": settings.PUBLISH_TIMEOUT,
            "write_timeout": settings.PUBLISH_TIMEOUT,
            "confirm_publish": True,  # else the broker may refuse without a word
        }
    # One try to connect: who publishes has somewhere else to keep what the broker does not take.
    options |= {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    options["connect_retries_timeout"] = settings.CONNECT_TIMEOUT
    return options


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return how sentinels are asked: once each, where redis-py would ask one that is away again for seconds."""
    from redis.backoff import NoBackoff  # noqa: PLC0415 - a host on another broker does not pay for it
    from redis.retry import Retry  # noqa: PLC0415 - as above

    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    return {**(options.get("sentinel_kwargs") or {}), **timeouts, "retry": Retry(NoBackoff(), 0)}


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


def _broker_errors() -> tuple[type[BaseException], ...]:
    return _errors_of(celery.get_app())

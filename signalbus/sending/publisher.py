"""From bodies to the broker: signs them, and is the only one who hands anything to Celery."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery.signals import before_task_publish
from kombu.exceptions import LimitExceeded, OperationalError
from kombu.pools import ProducerPool

from signalbus import celery, conf
from signalbus.exceptions import SignalBusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery import Celery
    from kombu import Connection

MAX_TEXTS = 100  # in one Celery message: what a lost claim disturbs
MAX_BATCH_BYTES = 1024 * 1024
POOL_SIZE = 10
# Headers that may stay out. Celery itself reads "eta" and "group" for those who listen to its `task_sent`.
EMPTY_UNLESS_SET = (
    "expires",
    "group_index",
    "parent_id",
    "replaced_task_nesting",
    "retries",
    "shadow",
    "stamped_headers",
    "stamps",
)


class PublishError(SignalBusError):
    """The broker did not take (all of) what was published.

    Args:
        unsent: the indexes of the bodies that it did not acknowledge.
        cause: what it said.
    """

    def __init__(self, unsent: range, cause: BaseException) -> None:
        super().__init__(
            f"The broker did not take {len(unsent)} message(s): {cause!r}. Is CELERY_BROKER_URL right, and does the "
            "broker run?"
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
    task = app.tasks[celery.TASK_NAME]
    options: dict[str, Any] = {
        "args": (list(texts),),
        "queue": queue,
        # Celery would repeat the texts in a header and in its logs; payloads do not belong there.
        "argsrepr": f"({len(texts)} texts)",
        "kwargsrepr": "{}",
        "retry": False,
        # Else what the host sets for all tasks would travel along: limits that override those of the worker, and a
        # time after which brokers drop the message.
        "time_limit": None,
        "soft_time_limit": None,
        "expires": None,
    }
    if app.conf.task_always_eager:
        task.apply_async(**options)
        return
    pool = _pool(app, os.getpid())
    with pool.acquire(block=True, timeout=conf.get().CONNECT_TIMEOUT) as producer:
        try:
            task.apply_async(producer=producer, **options)
        except _broker_errors() as error:
            if _is_timeout(error):
                # It may have been taken: publishing again at once would only add a duplicate and another wait.
                raise
            # A pooled connection that the broker closed while it was idle says so only now: once more, on a new one.
            producer.connection.collect()
            producer.revive(producer.connection)
            task.apply_async(producer=producer, **options)


@before_task_publish.connect(sender=celery.TASK_NAME)
def _slim(headers: dict[str, Any], body: Any, properties: dict[str, Any], **_kwargs: object) -> None:
    """Leave out what Celery takes for granted: a quarter of a small message, which is written, kept and read."""
    for name in EMPTY_UNLESS_SET:
        if not headers.get(name):
            headers.pop(name, None)
    if not any(headers.get("timelimit", ())):
        headers.pop("timelimit", None)
    for name in ("argsrepr", "kwargsrepr", "reply_to"):  # the first two are headers already; nobody replies
        properties.pop(name, None)
    if isinstance(body, tuple):  # else the host's CELERY_TASK_PROTOCOL is 1
        body[2].clear()  # no callbacks, chain or chord: the worker takes none


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
    connection = app.connection_for_write(transport_options=_transport_options(app))
    return ProducerPool(connection.Pool(limit=POOL_SIZE), limit=POOL_SIZE)


def _transport_options(app: Celery) -> dict[str, Any]:
    settings = conf.get()
    options = dict(app.conf.broker_transport_options or {})
    driver = app.connection_for_write().transport.driver_type
    if driver == "redis":
        options |= {
            "socket_timeout": settings.PUBLISH_TIMEOUT,
            "socket_connect_timeout": settings.CONNECT_TIMEOUT,
        }
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

"""Ask the broker about queues: how many messages wait, and how many workers consume.

``manage.py signalbus status`` calls it, and the worker's consumer for queues that the broker refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.exceptions import ChannelError, OperationalError

from signalbus import celery
from signalbus.compat.kombu_internals import abandon

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kombu import Connection

REMEDY = (
    "Its arguments or permissions are others than ours. Delete it when it is empty (rabbitmqctl delete_queue), or give "
    "its receivers another queue, and start the workers again."
)
NO_QUEUE = "404"  # of AMQP, where it is the error's code, and of kombu for Redis, where it is the reply's


@dataclass(frozen=True, slots=True)
class Presence:
    """The status of a queue, as the broker reports it.

    Args:
        waiting: Celery messages in it; None if the broker does not report it.
        workers: how many consume it; None if that is not known.
        error: the error of the broker, or empty.
        refused: why the broker refuses the queue as we declare it, so that no worker of ours consumes it, or empty.
    """

    waiting: int | None = None
    workers: int | None = None
    error: str = ""
    refused: str = ""


def ask_broker(queues: Iterable[str]) -> dict[str, Presence]:
    """Return the status of queues; nothing is declared or changed.

    Args:
        queues: their names.

    Returns:
        The status of each; an error is part of its status.
    """
    app = celery.get_app()
    with app.connection_for_read(transport_options=celery.transport_options(app)) as connection:
        return dict(_ask_each(connection, queues))


def _ask_each(connection: Connection, queues: Iterable[str]) -> Iterator[tuple[str, Presence]]:
    errors: tuple[Any, ...] = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
    outage = ""  # the error of an outage, so that only one queue waits for the timeout
    for queue in queues:
        if outage:
            yield queue, Presence(error=outage)
            continue
        try:
            channel: Any = connection.channel()  # of its own: RabbitMQ closes the one on which it has an objection
            waiting, workers = _ask(connection, channel, queue)
            channel.close()
            presence = Presence(waiting, workers, refused=why_refused(connection, queue))
        except errors as error:
            presence = Presence(error=f"{type(error).__name__}: {error}")
            if not isinstance(error, connection.channel_errors):
                outage = presence.error
                abandon(connection)  # which is closed on the way out
        yield queue, presence


def why_refused(connection: Connection, queue: str) -> str:
    """Return why RabbitMQ refuses to declare an existing queue as our app declares it.

    Args:
        connection: to the broker.
        queue: its name; a queue that does not exist is not made.

    Returns:
        The error of RabbitMQ, if the queue exists with other arguments or we have no right to it; else an empty text.
    """
    if connection.transport.driver_type != "amqp":
        return ""
    from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed  # noqa: PLC0415 - for RabbitMQ alone

    channel: Any = connection.channel()  # of its own: RabbitMQ closes the one on which it has an objection
    try:
        channel.queue_declare(queue, passive=True)
        celery.get_app().amqp.queues[queue](channel).queue_declare()
    except NotFound:
        return ""
    except (AccessRefused, PreconditionFailed) as error:
        return str(error)
    else:
        channel.close()
        return ""


def _ask(connection: Connection, channel: Any, queue: str) -> tuple[int, int | None]:
    """Return how many messages wait in a queue, and how many workers consume it."""
    waiting, consumers = 0, 0
    try:
        declared = channel.queue_declare(queue, passive=True)
    except ChannelError as error:
        if NO_QUEUE not in {str(error.code), str(error.reply_code)}:
            raise
    else:
        waiting, consumers = declared.message_count, declared.consumer_count
    kind = connection.transport.driver_type
    if kind == "redis":
        return waiting, _consumers_on_redis(channel, queue)
    return waiting, consumers if kind == "amqp" else None


def _consumers_on_redis(channel: Any, queue: str) -> int | None:
    from signalbus.compat.redis_internals import prefixed  # noqa: PLC0415 - a host on another broker does without redis-py
    from signalbus.transport.consumers import consumers_of  # noqa: PLC0415 - as above

    client = channel.client
    return consumers_of(client, int(client.connection_pool.connection_kwargs.get("db") or 0), prefixed(channel, queue))

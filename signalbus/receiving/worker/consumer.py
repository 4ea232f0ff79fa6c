"""Filter the messages that our own app's worker accepts: those of our task, and signed tasks (decision 0015).

Celery makes the consumer (see `celery.py`). The texts in a message of our task are verified later, in a process of
the pool (`routing/verification`).
"""

from __future__ import annotations

import logging
import reprlib
import uuid
from typing import TYPE_CHECKING, Any, cast

from celery.utils.imports import symbol_by_name
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from kombu import Message
from kombu.utils import json

from signalbus import celery
from signalbus.broker import queue_status, task_signing
from signalbus.exceptions import ConfigurationError, TextError
from signalbus.receiving.worker.request import ORIGIN, SCALARS
from signalbus.receiving.worker.unacknowledged import forget_if_lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from kombu import Connection

logger: logging.Logger = logging.getLogger("signalbus")

SHOWN = 500  # characters, or bytes, of what is refused


class SealedRequest(Request):
    """A request that sends its arguments to a child once, as their original text.

    Celery pickles them a second time, for `request.args`, which the child fills in anyway; nested a few hundred deep,
    they end the main process there.
    """

    @property
    def request_dict(self) -> dict[str, Any]:
        """The dict that the child gets beside the body."""
        return {name: value for name, value in super().request_dict.items() if name not in {"args", "kwargs"}}


class VerifyingConsumer(Consumer):
    """Celery's consumer, which sees only our task's messages, and tasks whose signature was verified."""

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Message], object]:
        """Return the function that Celery calls with each message."""
        handle = super().create_task_handler(*args, **options)

        def on_task_received(message: Message) -> object:
            return handle(verified(message))

        return on_task_received

    def update_strategies(self) -> None:
        """Prepare each task, with our request class for tasks that have none of their own."""
        for task in self.app.tasks.values():
            if symbol_by_name(task.Request) is Request:
                task.Request = f"{SealedRequest.__module__}:{SealedRequest.__name__}"
        super().update_strategies()
        _leave_out_refused_queues(self)


def _leave_out_refused_queues(consumer: Consumer) -> None:
    """Do not consume queues whose declaration RabbitMQ refuses: a refusal closes the channel of all queues.

    Args:
        consumer: a connected consumer that is about to declare its queues.

    Raises:
        ConfigurationError: RabbitMQ refuses all of them.
    """
    queues, connection = consumer.app.amqp.queues, cast("Connection", consumer.connection)
    answers = {name: queue_status.why_refused(connection, name) for name in list(queues.consume_from)}
    refused = {name: reason for name, reason in answers.items() if reason}
    for name, reason in refused.items():
        logger.error(
            "signalbus: this worker does not consume the queue %r, which the broker refuses: %s. %s",
            name, reason, queue_status.REMEDY,
        )  # fmt: skip
    if refused and len(refused) == len(answers):
        raise ConfigurationError(f"The broker refuses all queues of this worker: {refused}. {queue_status.REMEDY}")
    queues.deselect(list(refused))


def verified(message: Message) -> Message:
    """Return what Celery may see of a message: its own, a signed task's content, or one that our task refuses.

    Args:
        message: the message; any writer to the broker may have chosen all of it.
    """
    headers = message.headers
    task = headers.get("task") if isinstance(headers, dict) else None
    if task == celery.TASK_NAME:  # its texts are verified one by one
        return message
    try:
        signed = task_signing.verify_task(_text(message.body), task)
    except TextError as error:
        # In a child, which may wait for the ledger: as an item of our own task, which keeps it as a dead letter.
        shown = f"a message for the task {_shown(task)} ({error}): {_shown(message.body)}"
        headers = {"task": celery.TASK_NAME, "id": str(uuid.uuid4())}
        return _replaced(message, headers, "", json.dumps([[[shown]], {}, {}]))
    return forget_if_lost(_replaced(message, signed.headers, signed.reply_to, signed.body))


def _text(body: object) -> object:
    return body.decode("ascii", "replace") if isinstance(body, bytes) else body


def _shown(value: object) -> str:
    return repr(value[:SHOWN]) if isinstance(value, (str, bytes)) else reprlib.repr(value)


def _replaced(message: Message, headers: dict[str, Any], reply_to: str, body: str) -> Message:
    """Return a message that is acknowledged in the place of another."""
    info = message.delivery_info if isinstance(message.delivery_info, dict) else {}
    return Message(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers=headers,
        properties={"correlation_id": headers["id"], "reply_to": reply_to},
        delivery_info={name: info[name] for name in ORIGIN if name in info and type(info[name]) in SCALARS},
        delivery_tag=message.delivery_tag,
        channel=message.channel,
        accept={"application/json"},
    )

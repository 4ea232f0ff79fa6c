"""Seal the tasks that our own app publishes besides signals: sign a host's shared tasks and Celery's own as a whole.

A worker of our own app verifies a seal before it reads the message, and runs no task without one (decision 0015).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery.app.amqp import AMQP
from kombu.utils import json

from signalbus import celery, conf
from signalbus.exceptions import Forged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kombu import Producer

# No serializer of kombu's: a worker that takes such a message for one of Celery's refuses it without reading it.
CONTENT_TYPE = "application/x-signalbus-sealed"


@dataclass(frozen=True, slots=True)
class Sealed:
    """The content of a sealed message.

    Args:
        headers: Celery's headers of the message, and a host's own.
        reply_to: the queue that waits for the result, or an empty text.
        body: arguments and callbacks, as JSON.
    """

    headers: dict[str, Any]
    reply_to: str
    body: str


def seal(headers: Mapping[str, Any], reply_to: str, body: object) -> str:
    """Sign a task's message, and return its text.

    Args:
        headers: Celery's headers of the message, and a host's own.
        reply_to: the queue that waits for the result, or an empty text.
        body: arguments and callbacks.

    Raises:
        TypeError: JSON, as kombu extends it, cannot hold an argument.
    """
    return conf.task_signer().sign(f"{json.dumps([headers, reply_to])}\n{json.dumps(body)}")


def unseal(text: object, task: object) -> Sealed:
    """Verify a text and return its content.

    Args:
        text: a text from a queue, not verified yet.
        task: the task that the message names outside of its seal.

    Raises:
        TextError: no holder of one of the keys sealed this for that task.
    """
    head, _, body = conf.task_signer().verify(text).partition("\n")
    headers, reply_to = json.loads(head)
    if headers["task"] != task:
        raise Forged(f"sealed for the task {headers['task']!r}")
    return Sealed(headers, reply_to, body)


class SealingAMQP(AMQP):
    """Celery's AMQP, which seals each task's message before it is published."""

    @cached_property
    def send_task_message(self) -> Callable[..., Any]:
        """Send what `create_task_message` made, as Celery's does."""
        send: Callable[..., Any] = super().send_task_message

        def send_sealed(producer: Producer, name: str, message: Any, **options: Any) -> Any:
            # The texts of our task are signed one by one.
            sealing = producer if name == celery.TASK_NAME else _SealingProducer(producer, message.body)
            return send(sealing, name, message, **options)

        return send_sealed


class _SealingProducer:
    """A producer that seals one message, after listeners to `before_task_publish` have added to its headers.

    Args:
        producer: the producer that publishes.
        body: the body of the message; others that Celery publishes along, such as events, are published as they are.
    """

    def __init__(self, producer: Producer, body: object) -> None:
        self._producer = producer
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, *, headers: dict[str, Any], serializer: str | None = None, **options: Any) -> Any:
        """Publish a message; the task's message as one sealed text."""
        if body is not self._body:
            return self._producer.publish(body, headers=headers, serializer=serializer, **options)
        return self._producer.publish(
            seal(headers, options.get("reply_to") or "", body),
            headers={name: headers[name] for name in ("task", "id")},
            content_type=CONTENT_TYPE,
            content_encoding="us-ascii",
            **options,
        )

"""Sign each task that our own app publishes besides signals: a host's shared tasks, and Celery's own (decision 0015).

`celery` installs `TaskSigningAMQP` in our app. The worker's consumer (`receiving/worker/consumer`) verifies the
signature before it reads the message, and runs no task without one.
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
class SignedTask:
    """The content of a signed task's message, after its signature was verified.

    Args:
        headers: Celery's headers of the message, and a host's own.
        reply_to: the queue that waits for the result, or an empty text.
        body: arguments and callbacks, as JSON.
    """

    headers: dict[str, Any]
    reply_to: str
    body: str


def sign_task(headers: Mapping[str, Any], reply_to: str, body: object) -> str:
    """Sign a task's message, and return its text.

    Args:
        headers: Celery's headers of the message, and a host's own.
        reply_to: the queue that waits for the result, or an empty text.
        body: arguments and callbacks.

    Raises:
        TypeError: JSON, as kombu extends it, cannot hold an argument.
    """
    return conf.task_signer().sign(f"{json.dumps([headers, reply_to])}\n{json.dumps(body)}")


def verify_task(text: object, task: object) -> SignedTask:
    """Verify the text of a signed task, and return its content.

    Args:
        text: a text from a queue, not verified yet.
        task: the task that the message names outside of the signed text.

    Raises:
        TextError: no holder of one of the keys signed this for that task.
    """
    head, _, body = conf.task_signer().verify(text).partition("\n")
    headers, reply_to = json.loads(head)
    if headers["task"] != task:
        raise Forged(f"signed for the task {headers['task']!r}")
    return SignedTask(headers, reply_to, body)


class TaskSigningAMQP(AMQP):
    """Celery's AMQP, which signs each task's message before it is published."""

    @cached_property
    def send_task_message(self) -> Callable[..., Any]:
        """Send what `create_task_message` made, as Celery's does."""
        send: Callable[..., Any] = super().send_task_message

        def send_signed(producer: Producer, name: str, message: Any, **options: Any) -> Any:
            # The texts of our task are signed one by one.
            signing = producer if name == celery.TASK_NAME else _SigningProducer(producer, message.body)
            return send(signing, name, message, **options)

        return send_signed


class _SigningProducer:
    """A producer that signs one message, after listeners to `before_task_publish` have added to its headers.

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
        """Publish a message; the task's message as one signed text."""
        if body is not self._body:
            return self._producer.publish(body, headers=headers, serializer=serializer, **options)
        return self._producer.publish(
            sign_task(headers, options.get("reply_to") or "", body),
            headers={name: headers[name] for name in ("task", "id")},
            content_type=CONTENT_TYPE,
            content_encoding="us-ascii",
            **options,
        )

"""Build the Celery message around texts, and publish it without calling listeners that did not ask for our task.

`celery_producers` publishes with it, and `queue_item` records what it publishes. `Task.apply_async` calls all
listeners to `before_task_publish` and `after_task_publish`, in the middle of a `send()`: some store a result for each
publication. Here only tracers and listeners to our task are called (decision 0016).
"""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.signals import after_task_publish, before_task_publish
from celery.utils.nodenames import anon_nodename

from signalbus import celery
from signalbus.compat.celery_internals import listeners, task_here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery
    from kombu import Producer

logger: logging.Logger = logging.getLogger("signalbus")

# Tracers add their context to a message's headers, which a worker passes to them.
TRACERS = frozenset({"ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk"})


class Tree(NamedTuple):
    """The position of a Celery message in the tree of its tasks.

    Args:
        root: the id of the task that began it.
        parent: the id of the task that sends.
    """

    root: str
    parent: str


@lru_cache(maxsize=4)
def _origin(pid: int) -> str:  # noqa: ARG001 - it names the process, and a forked child is another
    return str(anon_nodename())


def tree_here(app: Celery) -> Tree | None:
    """Return the position of messages that this thread publishes now in the tree of Celery's tasks.

    Args:
        app: the app whose task may be running here.

    Returns:
        The position, or None outside of a task.
    """
    parent = task_here(app)
    if parent is None:
        return None
    request = parent.request
    return Tree(str(request.root_id or request.id), str(request.id))


def envelope(app: Celery, texts: Sequence[str], id_: str, tree: Tree | None) -> dict[str, Any]:
    """Return the arguments of `kombu.Producer.publish`, without those of the queue.

    Args:
        app: the app whose worker will consume it.
        texts: signed texts.
        id_: the Celery message's id.
        tree: the position that `tree_here` returned.
    """
    headers = {
        "lang": "py",
        "task": celery.TASK_NAME,
        "id": id_,
        "root_id": id_ if tree is None else tree.root,
        # Celery would repeat the texts in a header and in its logs; payloads do not belong there.
        "argsrepr": f"({len(texts)} texts)",
        "kwargsrepr": "{}",
        "origin": _origin(os.getpid()),
        "ignore_result": True,
    }
    if tree is not None:
        headers["parent_id"] = tree.parent
    return {
        # No callbacks, chain or chord, limits or times: the worker takes none.
        "body": [[list(texts)], {}, {}],
        "serializer": "json",
        "compression": app.conf.task_compression,
        "headers": headers,
        "correlation_id": id_,
        "priority": app.tasks[celery.TASK_NAME].priority,
        "retry": False,
    }


def address(app: Celery, name: str) -> dict[str, Any]:
    """Return the other arguments: those of a queue of an app, as Celery would find it.

    Args:
        app: the app.
        name: the queue's name.
    """
    queue = app.amqp.queues[name]
    direct = queue.exchange.type == "direct"
    return {
        # A direct exchange needs no binding, which other code might have changed.
        "exchange": "" if direct else queue.exchange.name,
        "routing_key": queue.name if direct else queue.routing_key,
        "declare": [queue],
        "delivery_mode": queue.exchange.delivery_mode or app.conf.task_default_delivery_mode,
    }


def is_heard() -> bool:
    """Return whether `publish` would call a listener, which may change the message."""
    if not before_task_publish.receivers and not after_task_publish.receivers:
        return False  # nearly always
    return bool(_hearers(before_task_publish) or _hearers(after_task_publish))


def publish(producer: Producer, message: dict[str, Any]) -> None:
    """Publish a message.

    Args:
        producer: the producer; its errors are raised unchanged.
        message: the arguments that `envelope` and `address` returned.
    """
    _announce(before_task_publish, message)
    producer.publish(**message)
    _announce(after_task_publish, message)


def _hearers(signal: Any) -> list[Any]:
    """Return the tracers, and the listeners that asked for our task by its name."""
    return [
        receiver
        for receiver, asked in listeners(signal, celery.TASK_NAME)
        if asked or str(getattr(receiver, "__module__", "")).partition(".")[0] in TRACERS
    ]


def _announce(signal: Any, message: dict[str, Any]) -> None:
    """Call the listeners to our messages. An error of theirs is logged, and the message is published."""
    for receiver in _hearers(signal):
        try:
            receiver(
                signal=signal,
                sender=celery.TASK_NAME,
                body=message["body"],
                headers=message["headers"],
                exchange=message["exchange"],
                routing_key=message["routing_key"],
                declare=message["declare"],
                properties={"correlation_id": message["correlation_id"]},
                retry_policy=None,
            )
        except Exception:
            logger.exception("signalbus goes on: a listener to Celery's %s raised", signal.name)

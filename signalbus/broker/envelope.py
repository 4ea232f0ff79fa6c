"""The Celery message around texts, and its way to the broker: written here, for Celery's own calls in everybody's code.

`Task.apply_async` tells all who listen to `before_task_publish` and `after_task_publish`, in the middle of a `send()`:
some store a result for each publication. Who has no business with a signal's texts is not called.
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

# They add their context to a message's headers, which a worker hands on to them.
TRACERS = frozenset({"ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk"})


class Tree(NamedTuple):
    """Where a Celery message stands in the tree of its tasks.

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
    """Return where what this thread publishes now stands.

    Args:
        app: the app whose task may be running here.

    Returns:
        The place, or None outside of a task.
    """
    parent = task_here(app)
    if parent is None:
        return None
    request = parent.request
    return Tree(str(request.root_id or request.id), str(request.id))


def envelope(app: Celery, texts: Sequence[str], id_: str, tree: Tree | None) -> dict[str, Any]:
    """Make what `kombu.Producer.publish` takes, but for the queue.

    Args:
        app: the app whose worker will take it.
        texts: signed texts.
        id_: the Celery message's id.
        tree: what `tree_here` returned.
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
    """Make the rest: where a queue of an app is, as Celery would find it.

    Args:
        app: the app.
        name: the queue's name.
    """
    queue = app.amqp.queues[name]
    direct = queue.exchange.type == "direct"
    return {
        # A direct exchange needs no binding that somebody else might have changed.
        "exchange": "" if direct else queue.exchange.name,
        "routing_key": queue.name if direct else queue.routing_key,
        "declare": [queue],
        "delivery_mode": queue.exchange.delivery_mode or app.conf.task_default_delivery_mode,
    }


def is_heard() -> bool:
    """Whether anybody listens to publications whom `publish` tells of ours: they may change what is published."""
    if not before_task_publish.receivers and not after_task_publish.receivers:
        return False  # nearly always
    return bool(_hearers(before_task_publish) or _hearers(after_task_publish))


def publish(producer: Producer, message: dict[str, Any]) -> None:
    """Publish a message.

    Args:
        producer: the producer; what the broker says goes through.
        message: what `envelope` and `address` made.
    """
    _announce(before_task_publish, message)
    producer.publish(**message)
    _announce(after_task_publish, message)


def _hearers(signal: Any) -> list[Any]:
    """Find tracers, and who asked for our task by its name."""
    return [
        receiver
        for receiver, asked in listeners(signal, celery.TASK_NAME)
        if asked or str(getattr(receiver, "__module__", "")).partition(".")[0] in TRACERS
    ]


def _announce(signal: Any, message: dict[str, Any]) -> None:
    """Tell who hears of ours. Their errors are theirs: the message goes out."""
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

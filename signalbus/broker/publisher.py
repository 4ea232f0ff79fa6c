"""Sign bodies and publish them to queues, by the fast path to Redis or through Celery, within a time limit.

All messages of signalbus are published here: `sending/outbox` calls it after a commit, the sweeper for rows that are
due, and workers for texts that they requeue. `fast_path` writes to Redis; `celery_producers` uses Celery. An error
names the texts that were not published.
"""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed

from signalbus import celery, conf, tracing
from signalbus.broker import celery_producers, envelope, fast_path
from signalbus.broker.queue_item import NoFastPathError
from signalbus.exceptions import SignalBusError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery import Celery

    from signalbus.broker.fast_path import FastPath

MAX_TEXTS = 100  # in one Celery message: as many are redelivered if a claim is lost
MAX_BATCH_BYTES = 1024 * 1024
EAGER = "task_always_eager"
MAX_PACKET = 8  # Celery messages that are written at once, so that they take no more than a few megabytes


class PublishError(SignalBusError):
    """The broker did not take all texts that were published.

    Args:
        unsent: the indexes of the bodies that it did not acknowledge.
        cause: the error of the broker.
        remedy: a hint at what to check; empty if the cause says it.
    """

    def __init__(self, unsent: range, cause: BaseException, remedy: str = "") -> None:
        text = f"The broker did not take {len(unsent)} message(s): {type(cause).__name__}: {cause}"
        super().__init__(f"{text.rstrip('.')}. {remedy}" if remedy else text)
        self.unsent = unsent


def publish(queue: str | None, bodies: Sequence[str]) -> None:
    """Sign bodies and publish them to a queue, as few Celery messages as the limits allow.

    Args:
        queue: the queue, or None for the default one.
        bodies: verified bodies, or bodies of our own.

    Raises:
        PublishError: some were not taken; the error names them.
    """
    try:
        make = conf.signer().sign
        texts = [make(body) for body in bodies]
    except SignalBusError as error:
        raise PublishError(range(len(bodies)), error) from error
    publish_signed(queue, texts)


def publish_signed(queue: str | None, texts: Sequence[str], *, sizes: Iterable[int] = ()) -> None:
    """Publish texts that this process has just signed.

    Args:
        queue: the queue, or None for the default one.
        texts: the texts.
        sizes: how many of them are in each Celery message, as in `publish_texts`.

    Raises:
        PublishError: some were not taken; it says which.
    """
    if not tracing.publishers:
        publish_texts(queue, texts, sizes=sizes)
        return
    with tracing.publishing(queue or celery.default_queue(), texts):
        publish_texts(queue, texts, sizes=sizes)


def sign(body: str) -> str:
    """Make the text of a body, as `publish` does.

    Args:
        body: a verified body, or one of our own.

    Raises:
        TextError: no worker would open it.
    """
    return conf.signer().sign(body)


def publish_texts(queue: str | None, texts: Sequence[str], *, sizes: Iterable[int] = ()) -> None:
    """Publish texts as they are.

    Args:
        queue: the queue, or None for the default one.
        texts: signed texts.
        sizes: how many of them are in each Celery message at most; the rest are in as few as the limits allow.

    Raises:
        PublishError: some were not taken; it says which.
    """
    sent, app = 0, None
    try:
        app, name = celery.get_app(), queue or celery.default_queue()
        path = _fast_path(app)
        for batches in _packets(texts, sizes):
            if path is not None:
                try:
                    path.push(name, batches)
                except NoFastPathError:
                    path = None  # not for this queue
                else:
                    sent += sum(map(len, batches))
                    continue
            for batch in batches:
                _through_celery(app, name, batch)
                sent += len(batch)
    except Exception as error:
        # Whatever it is (an app that cannot be imported, a host's own subclass of Task), what was sent is kept.
        raise PublishError(range(sent, len(texts)), error, "" if app is None else celery.broker_remedy()) from error


def _packets(texts: Sequence[str], sizes: Iterable[int]) -> Iterable[Sequence[Sequence[str]]]:
    """Divide texts into Celery messages, and these into packets that are written at once."""
    if len(texts) == 1:
        return ((texts,),)
    batches: list[Sequence[str]] = []
    limits = chain(sizes, repeat(MAX_TEXTS))
    start, size, end = 0, 0, next(limits)
    for index, text in enumerate(texts):
        if index > start and (index == end or size + len(text) > MAX_BATCH_BYTES):
            batches.append(texts[start:index])
            start, size = index, 0
        if index == end:
            end += next(limits)
        size += len(text)
    if texts:
        batches.append(texts[start:])
    return [batches[index : index + MAX_PACKET] for index in range(0, len(batches), MAX_PACKET)]


def _fast_path(app: Celery) -> FastPath | None:
    """Return the fast path of an app, if it has one and nothing forbids it at the moment."""
    if envelope.is_heard():
        return None
    changes = app.conf.changes or {}
    return _fast_path_unless_eager(app, os.getpid(), len(changes), changes.get(EAGER))


@lru_cache(maxsize=4)
def _fast_path_unless_eager(app: Celery, pid: int, changes: int, changed: object) -> FastPath | None:  # noqa: ARG001 - see below
    """Return the fast path, cached for the process and the changes of the app's settings.

    Reading one of Celery's settings takes as long as publishing a short message.
    """
    return None if app.conf.task_always_eager else fast_path.fast_path_of(app)


def _through_celery(app: Celery, queue: str, texts: Sequence[str]) -> None:
    if app.conf.task_always_eager:
        app.tasks[celery.TASK_NAME].apply_async(args=(list(texts),))
    else:
        celery_producers.publish(app, queue, texts)


def why_through_celery(queue: str) -> str | None:
    """Return why messages to a queue are published through Celery, which takes ten times as long.

    Args:
        queue: its name.

    Returns:
        The reason; None for those that are written directly.

    Raises:
        Exception: the error of the broker.
    """
    app = celery.get_app()
    if app.conf.task_always_eager:
        return "task_always_eager: they are delivered in the sender's process"
    if envelope.is_heard():
        return "somebody listens to Celery's publications of signalbus.deliver, as a tracer does"
    path = fast_path.fast_path_of(app)
    return fast_path.why_not(app) if path is None else path.why_not(queue)


def forget() -> None:
    """Close this process's connections to the broker; the next publication opens new ones."""
    app = celery.get_app()
    celery_producers.forget(app)
    fast_path.forget(app)
    _fast_path_unless_eager.cache_clear()


def _settings_changed(**_kwargs: Any) -> None:
    _fast_path_unless_eager.cache_clear()  # whatever it is: a host's app chooses the namespace of its settings


setting_changed.connect(_settings_changed)

"""What a Celery worker process needs besides the task: its queues, a sweeper, and clean connections."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import signals
from django.core import checks
from django.core.cache import close_caches
from django.core.management.base import SystemCheckError
from django.db import close_old_connections, connections, reset_queries

from signalbus import celery, conf
from signalbus.receiving.sweeper import Sweeper
from signalbus.registry import registry

if TYPE_CHECKING:
    from celery import Celery, Task
    from celery.worker import WorkController

logger = logging.getLogger("signalbus")

_sweepers: list[Sweeper] = []


def connect() -> None:
    """Listen to what Celery announces in its workers."""
    signals.worker_init.connect(_prepare, dispatch_uid="signalbus.prepare")
    signals.worker_ready.connect(_start_sweeper, dispatch_uid="signalbus.start_sweeper")
    signals.worker_shutdown.connect(_stop_sweeper, dispatch_uid="signalbus.stop_sweeper")
    signals.worker_process_init.connect(_drop_inherited, dispatch_uid="signalbus.drop_inherited")
    signals.task_prerun.connect(_reset, dispatch_uid="signalbus.reset_before")
    signals.task_postrun.connect(_reset, dispatch_uid="signalbus.reset_after")


def _app_of(worker: Any) -> Celery:
    app = worker.app
    return app._get_current_object() if hasattr(app, "_get_current_object") else app  # type: ignore[no-any-return]  # noqa: SLF001 - Celery's proxies


def _is_ours(worker: Any) -> bool:
    return _app_of(worker) is celery.get_app()


def _prepare(sender: WorkController, **_kwargs: object) -> None:
    """Check the project, and set up a worker of our own app."""
    if not _is_ours(sender):
        return
    _warn_of_async(sender)
    if not celery.is_own_app():
        return
    errors = [message for message in checks.run_checks() if message.is_serious() and not message.is_silenced()]
    if errors:
        raise SystemCheckError("\n\n".join(str(message) for message in errors))
    for queue in registry.queues():
        sender.app.amqp.queues.add(queue)
    if not sender.app.conf.worker_enable_remote_control:
        # Both listen to what any writer on the broker says, and one such message can end a worker.
        sender.options["without_gossip"] = sender.options["without_mingle"] = True
    close_old_connections()


def _warn_of_async(worker: Any) -> None:
    pool = worker.pool_cls if isinstance(worker.pool_cls, str) else worker.pool_cls.__module__
    green = any(kind in pool for kind in ("gevent", "eventlet"))
    stuck = [entry.id for signal in registry for entry in signal.entries() if entry.is_async] if green else []
    if stuck:
        logger.error("signalbus: `async def` receivers cannot run on the pool %s: %s", pool, ", ".join(sorted(stuck)))


def _start_sweeper(sender: Any, **_kwargs: object) -> None:
    interval = conf.get().SWEEP_SECONDS
    if interval and _is_ours(sender):
        sweeper = Sweeper(interval)
        _sweepers.append(sweeper)
        sweeper.start()


def _stop_sweeper(**_kwargs: object) -> None:
    while _sweepers:
        sweeper = _sweepers.pop()
        sweeper.stop()
        sweeper.join(timeout=5)


def _drop_inherited(**_kwargs: object) -> None:
    """Forget the parent's connections in a forked child, without a word to the server that they still serve."""
    for connection in connections.all(initialized_only=True):
        connection.connection = None


def _reset(sender: Task[Any, Any], **_kwargs: object) -> None:
    """Do between two tasks what Django does between two requests. (A host's app has Celery's own fixup for it.)"""
    if sender.request.is_eager or not celery.is_own_app():
        return
    reset_queries()
    close_old_connections()
    close_caches()

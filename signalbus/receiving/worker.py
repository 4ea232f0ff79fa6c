"""What a Celery worker process needs besides the task: its queues, a sweeper, and clean connections."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals
from django.core import checks
from django.core.cache import close_caches
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, close_old_connections, connections

from signalbus import celery, conf, ledger
from signalbus.exceptions import ConfigurationError
from signalbus.models import Delivery
from signalbus.receiving.sweeper import Sweeper
from signalbus.registry import registry

if TYPE_CHECKING:
    from celery import Task

logger = logging.getLogger("signalbus")

IDLE = 1.0  # seconds; what was well a moment ago need not be looked at again
_reset = threading.local()  # at: when this thread's connections were last looked at


def connect() -> None:
    """Listen to what Celery announces in its workers."""
    signals.worker_init.connect(_join, dispatch_uid="signalbus.join")
    signals.worker_process_init.connect(_drop_inherited, dispatch_uid="signalbus.drop_inherited")


def _join(sender: Any, **_kwargs: object) -> None:
    """Add our step to a worker of the app that carries the messages, whoever made that app."""
    app = sender.app._get_current_object() if hasattr(sender.app, "_get_current_object") else sender.app  # noqa: SLF001 - Celery's proxies
    if app is celery.get_app():
        app.steps["worker"].add(BusStep)


class BusStep(bootsteps.StartStopStep):
    """What the bus does in a worker's main process. A step, because an error in it ends the worker; in a handler of
    Celery's signals it would vanish.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._sweeper: Sweeper | None = None
        _warn_of_async(parent)
        _check_tables()
        if celery.is_own_app():
            _check()
            _prepare_own(parent)
        close_old_connections()
        if celery.is_own_app():
            _keep_connections()

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Start the sweeper, after the pool: its first children are forked without it."""
        interval = conf.get().SWEEP_SECONDS
        if interval:
            self._sweeper = Sweeper(interval)
            self._sweeper.start()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop the sweeper."""
        if self._sweeper is not None:
            self._sweeper.stop()
            self._sweeper.join(timeout=5)
            self._sweeper = None

    terminate = stop


def _check_tables() -> None:
    """Refuse to run without the ledger's tables: what fails could not be kept."""
    connection = connections[ledger.using()]
    try:
        tables = connection.introspection.table_names()
    except DatabaseError as error:
        logger.warning("signalbus cannot see its tables now, and will try again: %s", error)
        return
    if Delivery._meta.db_table not in tables:  # noqa: SLF001 - Django documents it
        raise ConfigurationError(
            f"The table {Delivery._meta.db_table} is missing in the database {connection.alias!r}: run "  # noqa: SLF001 - as above
            "`python manage.py migrate`, then start the worker again."
        )


def _check() -> None:
    """Run Django's system checks, as ``runserver`` does."""
    for message in checks.run_checks(tags=["signalbus"]):
        if not message.is_serious() and not message.is_silenced():
            logger.warning("%s", message)
    serious = [message for message in checks.run_checks() if message.is_serious() and not message.is_silenced()]
    if serious:
        raise SystemCheckError("\n\n".join(str(message) for message in serious))


def _prepare_own(worker: Any) -> None:
    """Set up a worker of our own app."""
    if worker.app.amqp.queues._consume_from is None:  # noqa: SLF001 - no -Q was given
        for queue in registry.queues():
            worker.app.amqp.queues.select_add(queue)
    if not worker.app.conf.worker_enable_remote_control:
        # Both listen to what any writer on the broker says, and one such message can end a worker.
        worker.options["without_gossip"] = worker.options["without_mingle"] = True
    # A host's app has Celery's own fixup for what these two do.
    signals.task_prerun.connect(_reset_before, dispatch_uid="signalbus.reset_before")
    signals.task_postrun.connect(_reset_after, dispatch_uid="signalbus.reset_after")


def _keep_connections() -> None:
    """Keep the databases' connections between messages, where the host's settings close each after its use.

    A worker that connects anew for each message spends more on that than on the message. A connection that was kept is
    tried before it is used.
    """
    seconds = conf.get().CONNECTION_SECONDS
    for alias in connections:
        settings = connections.settings[alias]
        # A pool of psycopg's keeps connections by itself, and refuses to be told to.
        if seconds and settings["CONN_MAX_AGE"] == 0 and not settings["OPTIONS"].get("pool"):
            settings |= {"CONN_MAX_AGE": seconds, "CONN_HEALTH_CHECKS": True}


def _warn_of_async(worker: Any) -> None:
    pool = str(worker.pool_cls)
    green = any(kind in pool for kind in ("gevent", "eventlet"))
    stuck = [entry.id for signal in registry for entry in signal.entries() if entry.is_async] if green else []
    if stuck:
        logger.error("signalbus: `async def` receivers cannot run on the pool %s: %s", pool, ", ".join(sorted(stuck)))


def _drop_inherited(**_kwargs: object) -> None:
    """Forget the parent's connections in a forked child, without a word to the server that they still serve."""
    for connection in connections.all(initialized_only=True):
        connection.connection = None


def _reset_before(sender: Task[Any, Any], **_kwargs: object) -> None:
    """Close connections that grew too old, or broke, while there was nothing to do."""
    idle = time.monotonic() - getattr(_reset, "at", 0.0)
    if idle > IDLE and not sender.request.is_eager:
        close_old_connections()


def _reset_after(sender: Task[Any, Any], **_kwargs: object) -> None:
    """Do after a task what Django does after a request."""
    if sender.request.is_eager:
        return
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()
        connection.close_if_unusable_or_obsolete()
    close_caches()
    _reset.at = time.monotonic()

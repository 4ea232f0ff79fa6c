"""Set up a Celery worker at its start: checks, queues, the sweeper, and clean connections in each process.

`celery_signals` imports it as a worker starts, before that forks (decision 0013). Only workers import it.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps, signals
from django.core import checks
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, connections

from signalbus import celery, conf
from signalbus.compat.celery_internals import names_queues
from signalbus.compat.pool_internals import keep_written_requests, reap_at_once
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import attempts as ledger
from signalbus.models import Delivery
from signalbus.receiving.pausing.pause_gate import obey_pauses
from signalbus.receiving.pausing.pause_watch import watch
from signalbus.receiving.process import database_connections, interruption, keepalive, session_state, task_log
from signalbus.receiving.recording import recorder
from signalbus.receiving.recording.recorder import Recorder
from signalbus.receiving.recording.worker_description import describe_worker
from signalbus.receiving.recording.worker_presence import WorkerPresence
from signalbus.receiving.routing import batch  # noqa: F401 - what runs deliveries, imported before processes are forked
from signalbus.receiving.sweeping.sweeper import Sweeper
from signalbus.receiving.worker import capacity
from signalbus.registration.registry import registry

logger: logging.Logger = logging.getLogger("signalbus")


def connect() -> None:
    """Connect to Celery's signals of a worker's processes, in its main one."""
    signals.worker_before_create_process.connect(
        database_connections.close_before_fork, dispatch_uid="signalbus.close_before_fork"
    )
    signals.worker_process_init.connect(database_connections.drop_inherited, dispatch_uid="signalbus.drop_inherited")
    signals.worker_process_init.connect(recorder.start_in_child, dispatch_uid="signalbus.record")
    signals.worker_process_shutdown.connect(recorder.stop_in_child, dispatch_uid="signalbus.record")
    signals.worker_shutting_down.connect(interruption.tell_children, dispatch_uid="signalbus.tell_children")


class BusStep(bootsteps.StartStopStep):
    """The start and stop of the bus in a worker's main process.

    It is a bootstep, because an error in it ends the worker; Celery ignores an error in a handler of its signals.
    """

    requires: tuple[str, ...] = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._sweeper: Sweeper | None = None
        self._recorder: Recorder | None = None
        task_log.complete()
        _say_once(parent.app)
        keepalive.listen()
        session_state.listen()
        _warn_of_async(parent)
        _check_content(parent)
        _check_tables()
        _learn_of_pauses()
        if celery.is_own_app():
            _check()
            _prepare_own(parent)
        _warn_of_other_queues(parent.app)
        database_connections.close_before_fork()
        if celery.is_own_app():
            database_connections.keep_connections()
        recorder.prepare()

    def start(self, parent: Any) -> None:
        """Start the sweeper and the recorder, after the pool: its first children are forked without them."""
        keep_written_requests(parent.pool)
        reap_at_once(parent.pool)
        if celery.claims():
            capacity.claim(parent)
        interval = conf.get().SWEEP_SECONDS
        presence = WorkerPresence(describe_worker(parent))
        if interval:
            self._sweeper = Sweeper(interval, parent.max_concurrency or parent.pool.num_processes, presence)
            self._sweeper.start()
        self._recorder = Recorder(None if interval else presence)
        self._recorder.start()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop the sweeper, and record what is left."""
        if self._recorder is not None:
            self._recorder.stop()
            self._recorder = None
        if self._sweeper is not None:
            self._sweeper.stop()
            self._sweeper.join(timeout=5)
            self._sweeper = None

    terminate = stop


def _say_once(app: Any) -> None:
    """Do not pass our log records on to Celery's handlers, if the host has configured our logger with its own.

    Celery replaces the host's handlers of the root logger by its own, by default.
    """
    if logger.handlers and app.conf.worker_hijack_root_logger and not signals.setup_logging.receivers:
        logger.propagate = False


def _check_content(worker: Any) -> None:
    """Refuse to run if Celery would drop each message unread."""
    accepted = worker.app.conf.accept_content
    if not {"json", "application/json"} & set(accepted):
        raise ConfigurationError(
            f"CELERY_ACCEPT_CONTENT is {accepted!r}, so this worker would drop every signal, which travels as JSON: "
            'add "json" to it.'
        )


def _check_tables() -> None:
    """Refuse to run without the ledger's tables: failures could not be recorded."""
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


def _learn_of_pauses() -> None:
    """Read what is paused before the first delivery, and before the first process is forked."""
    obey_pauses()
    try:
        watch.refresh()
    except DatabaseError as error:
        logger.warning("signalbus cannot see now what is paused, and will try again: %s", error)


def _check() -> None:
    """Run Django's system checks, as ``runserver`` does, and those of the ledger's database."""
    for message in checks.run_checks(tags=["signalbus"], databases=[ledger.using()]):
        if not message.is_serious() and not message.is_silenced():
            logger.log(message.level, "%s", message)
    serious = [message for message in checks.run_checks() if message.is_serious() and not message.is_silenced()]
    if serious:
        raise SystemCheckError("\n\n".join(str(message) for message in serious))


def _prepare_own(worker: Any) -> None:
    """Set up a worker of our own app."""
    if not names_queues(worker.app):
        _consume_receivers_queues(worker.app)
    if not worker.app.conf.worker_enable_remote_control:
        # Both read messages that any writer to the broker can send, and one such message can end a worker.
        worker.options["without_gossip"] = worker.options["without_mingle"] = True
    # A host's app has Celery's own fixup for what these do.
    signals.beat_embedded_init.connect(database_connections.drop_inherited, dispatch_uid="signalbus.drop_inherited")
    signals.task_prerun.connect(database_connections.reset_before, dispatch_uid="signalbus.reset_before")
    signals.task_postrun.connect(database_connections.reset_after, dispatch_uid="signalbus.reset_after")


def _consume_receivers_queues(app: Any) -> None:
    """Consume each queue that a receiver names, declared as the sender declares it: RabbitMQ refuses any difference."""
    queues = app.amqp.queues
    for name in registry.queues():
        queues.select_add(queues[name] if name in queues else queues.new_missing(name))


def _warn_of_other_queues(app: Any) -> None:
    """Warn if this worker consumes no queue of any receiver, as with a wrong ``-Q``."""
    ours = {celery.default_queue(), *registry.queues()}
    consumed = set(app.amqp.queues.consume_from)
    if ours.isdisjoint(consumed):
        logger.warning(
            "signalbus: this worker consumes %s, and none of the queues that signals come through (%s): it delivers "
            "nothing. Leave -Q out, or name one of them.",
            ", ".join(sorted(consumed)) or "no queue", ", ".join(sorted(ours)),
        )  # fmt: skip


def _warn_of_async(worker: Any) -> None:
    pool = str(worker.pool_cls)
    green = any(kind in pool for kind in ("gevent", "eventlet"))
    stuck = [entry.id for signal in registry for entry in signal.entries() if entry.is_async] if green else []
    if stuck:
        logger.error("signalbus: `async def` receivers cannot run on the pool %s: %s", pool, ", ".join(sorted(stuck)))

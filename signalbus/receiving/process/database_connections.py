"""Manage a worker's database connections: keep them between messages, reset them after a receiver, share none by fork.

`worker/bootstrap` sets it up, and `running/` resets connections after each attempt (decisions 0011 and 0013).
Sessions that a receiver changed are `session_state`'s.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import current_task
from django.core.cache import caches, close_caches
from django.db import Error, close_old_connections, connections
from django.db.transaction import TransactionManagementError

from signalbus import conf
from signalbus.compat.django_internals import close_pools, forget_pools, opened_connections, rollback_error
from signalbus.receiving.process.query_cancellation import (
    PG_IDLE,
    PG_IN_TRANSACTION,
    cancel_query,
    is_closed_by_driver,
    pg_status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Task
    from django.db.backends.base.base import BaseDatabaseWrapper

logger: logging.Logger = logging.getLogger("signalbus")

IDLE = 1.0  # seconds; what was well a moment ago need not be looked at again

_main = os.getpid()  # the process that forks the others

_reset = threading.local()  # at: when this thread's connections were last looked at
# The settings of the caches that were made in this context, and the thread that made them.
_caches: contextvars.ContextVar[object] = contextvars.ContextVar("signalbus_caches", default=None)


def keep_connections() -> None:
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


def close_connection(connection: BaseDatabaseWrapper) -> None:
    """Close one connection, whatever state it is in."""
    try:
        connection.close()
    except Error:
        logger.warning("signalbus could not close a connection", exc_info=True)


def discard_session(connection: BaseDatabaseWrapper) -> None:
    """Close a connection whose session must not be used again, unless it is in a transaction of the caller."""
    if connection.connection is None or (connection.in_atomic_block and not _is_worker()):
        return
    if connection.settings_dict["OPTIONS"].get("pool"):
        with contextlib.suppress(Error), connection.wrap_database_errors:
            connection.connection.close()  # else it would go back into the pool as it is
    close_connection(connection)


def close_connections() -> None:
    """Close the connections of this thread."""
    try:
        connections.close_all()
    except Error:
        logger.warning("signalbus could not close a connection", exc_info=True)


def close_before_fork(**_kwargs: object) -> None:
    """Close the connections of a worker's main thread and its pools: children would inherit them."""
    close_connections()
    close_pools()


def use_no_pools() -> None:
    """Let this thread open connections of its own, where the settings ask for a pool.

    A pool has threads of its own, which no forked child has; and it holds several connections, of which this thread
    would need one.
    """
    for alias in connections:
        connection = connections[alias]
        options = connection.settings_dict["OPTIONS"]
        if options.get("pool"):
            alone = {name: value for name, value in options.items() if name != "pool"}
            connection.settings_dict = {**connection.settings_dict, "OPTIONS": alone}


def drop_inherited(**_kwargs: object) -> None:
    """Forget the parent's connections and pools in a forked child, without a word to the server that they still serve.

    Celery calls it in a pool without forks as well, where they are this process's own.
    """
    if os.getpid() == _main:
        return
    for connection in connections.all(initialized_only=True):
        connection.connection = None
    forget_pools()


def reset_before(sender: Task[Any, Any], **_kwargs: object) -> None:
    """Close connections that became too old, or broke, while the worker was idle."""
    idle = time.monotonic() - getattr(_reset, "at", 0.0)
    if idle > IDLE and not sender.request.is_eager:
        close_old_connections()


def reset_after(sender: Task[Any, Any], **_kwargs: object) -> None:
    """Reset connections and caches after a task, as Django does after a request."""
    if sender.request.is_eager:
        return
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()
        if not _is_at_rest(connection):
            _drop(connection)
        connection.close_if_unusable_or_obsolete()
    close_caches()
    _reset.at = time.monotonic()


def open_caches() -> None:
    """Create the caches' clients in this context, from which each receiver's context is copied.

    Django keeps them in a context variable: made in a receiver's context, they would be made anew for each run.
    """
    here = (caches.settings, threading.get_ident())  # a copied context may be another thread's
    if _caches.get() == here:
        return
    for alias in caches:
        # A backend whose import fails, or that needs a missing library: the code that uses it gets the error.
        with contextlib.suppress(Exception):
            caches[alias]
    _caches.set(here)


def reset_connections(*, but: str | None = None) -> None:
    """Close connections that a receiver left broken, in mid-query or in a transaction.

    Args:
        but: the alias of a connection that the caller still uses.
    """
    for connection in opened_connections():
        if connection.alias == but or (connection.in_atomic_block and not _is_worker()):
            continue  # a test's transaction, or a sender's in eager mode
        if not _is_at_rest(connection):
            _drop(connection)
        elif connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()


def left_open(*, but: BaseDatabaseWrapper | None = None) -> bool:
    """Return whether a receiver has left a transaction open, which would include the writes of the next receiver.

    Args:
        but: a connection whose transaction goes on, and does not count.
    """
    for connection in opened_connections():
        if (connection.in_atomic_block or not connection.autocommit) and not (
            connection.connection is None or connection is but
        ):
            return True
    return False


def _is_worker() -> bool:
    """Return whether this is a task in a worker, which runs in no transaction of a caller."""
    return bool(current_task) and not current_task.request.is_eager


def _is_at_rest(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a connection is idle: it has no query with an unread answer, and no transaction."""
    autocommit = connection.settings_dict["AUTOCOMMIT"]
    if connection.in_atomic_block or (connection.connection is not None and connection.autocommit != autocommit):
        return False
    if is_closed_by_driver(connection) or (autocommit and _has_begun(connection)):
        return False
    status = pg_status(connection)
    return status in {None, PG_IDLE} or (not autocommit and status == PG_IN_TRANSACTION)


def _has_begun(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the driver is in a transaction, or would begin one, of which Django knows nothing.

    A time limit that strikes while SQLite waits for its lock is raised as soon as it is in the transaction, before
    Django notes that: the transaction would not end, and no other process could write any more.
    """
    driver: Any = connection.connection
    if driver is None:
        return False
    if connection.vendor == "sqlite":
        return bool(driver.in_transaction)
    if connection.vendor == "postgresql":
        return not driver.autocommit
    # What mysqlclient and PyMySQL know by themselves; another driver would ask the server.
    return hasattr(driver, "get_autocommit") and not driver.get_autocommit()


def _drop(connection: BaseDatabaseWrapper) -> None:
    """Close a connection, whatever state it and its transactions are in; the next query opens a new one."""
    cancel_query(connection)
    with contextlib.suppress(Error):  # it is given up anyway
        connection.close()
    connection.connection = None
    # The atomic block of an interrupted receiver is over; Django resets the rest when it connects.
    connection.in_atomic_block = connection.closed_in_transaction = False


def reject_broken(connection: BaseDatabaseWrapper, former: BaseException | None = None, *, begun: bool = False) -> None:
    """Raise if a commit would silently roll back: the receiver asked for that, or caught an error in its transaction.

    Args:
        connection: the connection of its transaction.
        former: the value of `rollback_error` before the receiver ran.
        begun: the database has begun that transaction, so that it must not be without one.
    """
    if not (_is_broken(connection) or (begun and pg_status(connection) == PG_IDLE)):
        return
    error = rollback_error(connection)
    if connection.needs_rollback and error is former and not _is_broken_for_database(connection):
        raise TransactionManagementError(
            "the receiver asked for a rollback of its whole transaction, by transaction.set_rollback(True) or by an "
            "error that left an atomic(savepoint=False) and was caught, so nothing that it wrote can be committed: "
            "raise an exception instead (signalbus.Reject if no retry will help), or connect it with atomic=False and "
            "roll back an atomic() of its own"
        )
    cancel_query(connection)  # of a timeout that the receiver caught
    raise TransactionManagementError(
        "the receiver went on after a database error in its transaction (or asked for a rollback then), or after a "
        "timeout in mid-query, so it cannot be committed any more: put what may fail into an atomic() of its own, "
        "inside the try"
    ) from (None if error is former else error)


@contextlib.contextmanager
def rolled_back_if_broken(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Run a receiver with ``atomic=False`` inside a test's transaction, which a failed query must not end.

    By a savepoint of its own, which it is rolled back to only then: an ``atomic()`` block would take back what stays
    in a worker, and forbid the receiver an ``atomic(durable=True)``.
    """
    savepoint = connection.savepoint() if connection.in_atomic_block else None
    if savepoint is None:
        yield
        return
    try:
        yield
    finally:
        if _is_broken(connection):
            connection.set_rollback(False)
            connection.savepoint_rollback(savepoint)
        connection.savepoint_commit(savepoint)


def _is_broken(connection: BaseDatabaseWrapper) -> bool:
    """Return whether an open transaction can only be rolled back, or is in mid-query."""
    return connection.needs_rollback or _is_broken_for_database(connection)


def _is_broken_for_database(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a transaction is lost whatever Django makes of it."""
    if connection.connection is None:
        return True
    if connection.vendor == "postgresql":
        return pg_status(connection) not in {PG_IDLE, PG_IN_TRANSACTION}
    return connection.vendor == "mysql" and is_closed_by_driver(connection)

"""The connections and caches of a worker: kept between messages, mended after a receiver, never a parent's."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any

from django.core.cache import caches, close_caches
from django.db import close_old_connections, connections
from django.db.transaction import TransactionManagementError

from signalbus import conf

if TYPE_CHECKING:
    from celery import Task
    from django.db.backends.base.base import BaseDatabaseWrapper

IDLE = 1.0  # seconds; what was well a moment ago need not be looked at again
PG_IN_ERROR = 3  # psycopg's TransactionStatus.INERROR

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


def drop_inherited(**_kwargs: object) -> None:
    """Forget the parent's connections in a forked child, without a word to the server that they still serve."""
    for connection in connections.all(initialized_only=True):
        connection.connection = None


def reset_before(sender: Task[Any, Any], **_kwargs: object) -> None:
    """Close connections that grew too old, or broke, while there was nothing to do."""
    idle = time.monotonic() - getattr(_reset, "at", 0.0)
    if idle > IDLE and not sender.request.is_eager:
        close_old_connections()


def reset_after(sender: Task[Any, Any], **_kwargs: object) -> None:
    """Do after a task what Django does after a request."""
    if sender.request.is_eager:
        return
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()
        connection.close_if_unusable_or_obsolete()
    close_caches()
    _reset.at = time.monotonic()


def open_caches() -> None:
    """Make the caches' clients in this context, where each receiver's own one finds them, and where they are closed.

    Django keeps them in a context variable: made in a receiver's context, they would be made anew for each run.
    """
    here = (caches.settings, threading.get_ident())  # a copied context may be another thread's
    if _caches.get() == here:
        return
    for alias in caches:
        # A backend that cannot be imported, or made without a library that is missing: who asks for it gets the error.
        with contextlib.suppress(Exception):
            caches[alias]
    _caches.set(here)


def mend_connections() -> None:
    """Close what the receiver left dead, or in no state to write anything down; leave alone what is well."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]:
            connection.close_if_unusable_or_obsolete()


def reject_broken(connection: BaseDatabaseWrapper) -> None:
    """Fail where a commit would quietly roll back: the receiver caught a database error inside its transaction."""
    broken = connection.needs_rollback or connection.connection is None
    if connection.vendor == "postgresql" and not broken:
        broken = connection.connection.info.transaction_status == PG_IN_ERROR
    if broken:
        raise TransactionManagementError(
            "the receiver went on after a database error in its transaction, which cannot be committed any more: put "
            "what may fail into an atomic() of its own, inside the try"
        )

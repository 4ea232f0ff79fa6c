"""Detect statements that change a receiver's database session, and close that connection after the run.

Decision 0039. Workers keep their connections: a role, a ``search_path``, a setting, an advisory lock or a temporary
table of one run would be the next run's as well. This module inspects the statements of a receiver on their way to
the driver, and closes a connection whose session was changed: the next run begins with a fresh one, as a request does
by default. `worker/bootstrap` turns it on, and `running/` calls `end_changed_sessions` after each run.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.utils import load_backend

from signalbus.compat.django_internals import opened_connections
from signalbus.receiving.process.database_connections import discard_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

# Statements that hold for the session, on PostgreSQL, MariaDB or SQLite. SET LOCAL and the like end with a transaction.
_STATEMENT: Final = re.compile(
    r"\s*"
    r"(?:set\s+(?!local\b|transaction\b|constraints\b|@@local\.)|reset\b|discard\b|listen\b|unlisten\b"
    r"|prepare\s+(?!transaction\b)|deallocate\b|load\b|declare\b[^;]*\bwith\s+hold\b"
    r"|create\s+(?:or\s+replace\s+)?(?:(?:local|global)\s+)?temp(?:orary)?\b|do\b|call\b|execute\b"
    r"|pragma\b|attach\b|detach\b|use\b|lock\s+tables?\b|flush\b|handler\b)"
)
_COMMENT: Final = re.compile(r"/\*.*?\*/|(?:--|#)[^\n]*", re.DOTALL)
# The same anywhere in a statement: calls of functions, and temporary tables that are made by their schema.
_ANYWHERE: Final = re.compile(
    r"\bpg_(?:try_)?advisory_lock(?:_shared)?\s*\(|\b(?:get_lock|dblink_connect(?:_u)?|lo_open|setseed|set_limit)\s*\("
    r"|\bcreate\s+table\s+(?:if\s+not\s+exists\s+)?(?:pg_)?temp\.|\binto\s+temp(?:orary)?\s"
    r"|@\w+\s*:=|\binto\s+@"
)
_SETTING: Final = re.compile(r"\bset_config\s*\(")
_LOCAL_SETTING: Final = re.compile(r"set_config\s*\([^()]*,\s*true\s*\)")

_SAVEPOINT: Final = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")  # as Django writes them
MOST_REMEMBERED: Final = 2000  # characters of a statement whose answer is remembered


class _Sessions(threading.local):
    """The connections of this thread that are to be closed; None while there has been none."""

    changed: list[BaseDatabaseWrapper] | None = None


_local = _Sessions()


def listen() -> None:
    """Inspect the statements of each connection that this process, and those that it forks, open from now on."""
    connection_created.connect(_attach, dispatch_uid="signalbus.session_state")


def _attach(connection: BaseDatabaseWrapper, **_kwargs: object) -> None:
    forget_change(connection)  # by what set the fresh session up, or the one before it
    if _look not in connection.execute_wrappers:
        # As the first: Django's execute_wrapper() takes the last one away when it ends.
        connection.execute_wrappers.insert(0, _look)


def _look(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    """Run a statement, as Django's ``execute_wrapper()`` asks for it, and note what it changes, even if it fails."""
    connection = context["connection"]
    text = sql if type(sql) is str else text_of(sql, connection)
    if changes_session(text) and not _is_restored(text, connection):
        note_change(connection)
    return execute(sql, params, many, context)


def leaves_traces(sql: str, connection: Any) -> bool:
    """Return whether a statement changes the session of a connection, and is not undone later."""
    return changes_session(sql) and not _is_restored(sql, connection)


def _is_restored(sql: str, connection: Any) -> bool:
    """Return whether a change is undone: a tenant library sets the ``search_path`` whenever the schema changes."""
    return hasattr(connection, "set_schema_to_public") and sql.lstrip()[:15].lower() == "set search_path"


def changes_session(sql: str) -> bool:
    """Return whether a statement changes the database session beyond its transaction."""
    if sql.startswith(_SAVEPOINT) and ";" not in sql:
        return False  # the name of each savepoint is another: its answer is not worth remembering
    # The texts of bulk inserts are long, and seldom the same.
    return _known_change(sql) if len(sql) <= MOST_REMEMBERED else _is_change(sql)


def _is_change(sql: str) -> bool:
    text = sql.lower()
    if _is_plain_change(text):
        return True
    has_comments = "/*" in text or "--" in text or "#" in text
    return has_comments and ("/*!" in text or _is_plain_change(_COMMENT.sub(" ", text)))


_known_change = lru_cache(maxsize=1000)(_is_change)


def _is_plain_change(text: str) -> bool:
    if any(_STATEMENT.match(each) is not None for each in (text.split(";") if ";" in text else (text,))):
        return True
    if _ANYWHERE.search(text) is not None:
        return True
    return "set_config" in text and len(_SETTING.findall(text)) > len(_LOCAL_SETTING.findall(text))


def text_of(sql: Any, connection: Any) -> str:
    """Return the text of a statement: of psycopg's ``sql`` module, or bytes."""
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    return str(sql.as_string(connection.connection)) if hasattr(sql, "as_string") else str(sql)


def note_change(connection: BaseDatabaseWrapper) -> None:
    """Note that the session of a connection was changed, so that it is closed after the run."""
    if _local.changed is None:
        _local.changed = []
    if connection not in _local.changed:
        _local.changed.append(connection)


def forget_change(connection: BaseDatabaseWrapper) -> None:
    """Note that the session of a connection is fresh, or was not changed after all."""
    if _local.changed is not None and connection in _local.changed:
        _local.changed.remove(connection)


def is_changed(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the session of a connection was changed, and will be closed."""
    return _local.changed is not None and connection in _local.changed


def end_changed_sessions(*, but: BaseDatabaseWrapper | None = None) -> None:
    """Close the connections of this thread whose session was changed since the last call; outside of transactions.

    Args:
        but: a connection whose transaction goes on; it is left to a later call.
    """
    if not _local.changed:
        return
    changed, _local.changed = _local.changed, [each for each in _local.changed if each is but]
    for connection in changed:
        if connection is not but:
            discard_session(connection)


@contextmanager
def restored_schemas() -> Iterator[None]:
    """Run a receiver, and set each connection of a tenant library back to the schema that it was in."""
    before = {connection: connection.schema_name for connection in _with_schemas()}
    try:
        yield
    finally:
        for connection in _with_schemas():
            schema = before.get(connection)
            if connection.schema_name != schema:
                _set_schema(connection, schema)


def _with_schemas() -> list[Any]:
    return [connection for connection in opened_connections() if hasattr(connection, "set_schema_to_public")]


def _set_schema(connection: Any, schema: str | None) -> None:
    if schema is None:
        connection.set_schema_to_public()
    else:
        connection.set_schema(schema)


@lru_cache(maxsize=1)
def has_schemas() -> bool:
    """Return whether the host has a database of a tenant library, which keeps a schema on each connection.

    The classes of the backends are asked: connections would be made for databases that this process does not use.
    """
    return any(_has_schema(settings["ENGINE"]) for settings in connections.settings.values())


def _has_schema(engine: str) -> bool:
    try:
        backend: Any = load_backend(engine)
    except ImproperlyConfigured:  # not installed here: the code that uses that database gets the error
        return False
    return hasattr(backend.DatabaseWrapper, "set_schema_to_public")

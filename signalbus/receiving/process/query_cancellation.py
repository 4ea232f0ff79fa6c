"""Cancel the queries of interrupted receivers that the database server still executes.

`invoking/invocation` calls it when a receiver raises, and `database_connections` when it resets a connection. The
server goes on with such a query, and keeps the locks of its transaction: among them that of the delivery's own row,
whose outcome could not be recorded. psycopg can cancel the query. PyMySQL closes its own end of the connection, so
the session is ended by ``KILL``, from a new connection. mysqlclient is not interrupted before its server has
answered, but gives the connection up after its ``read_timeout``.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from django.db import Error

from signalbus.compat.django_internals import opened_connections

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

logger: logging.Logger = logging.getLogger("signalbus")

CANCEL_SECONDS: Final = 5  # for a server to give up a query, and for a new connection to be made
POLL_SECONDS: Final = 0.01
# What libpq calls the states of a connection.
PG_IDLE, PG_ACTIVE, PG_IN_TRANSACTION, PG_IN_ERROR = 0, 1, 2, 3

NO_SUCH_SESSION: Final = 1094
# The user and the database as well: behind a proxy, or after a restart, the number may be another session's.
_SESSION: Final = (
    "SELECT command FROM information_schema.processlist WHERE id = %s AND command <> 'Sleep' "
    "AND user = substring_index(user(), '@', 1) AND db <=> database()"
)


def cancel_queries() -> None:
    """Cancel the interrupted queries of this thread's connections: what they have locked becomes free."""
    for connection in opened_connections():
        cancel_query(connection)


def cancel_query(connection: BaseDatabaseWrapper) -> None:
    """Cancel the query of a connection, if it was interrupted while the server worked on it."""
    driver: Any = connection.connection
    try:
        with connection.wrap_database_errors:
            if pg_status(connection) == PG_ACTIVE and hasattr(driver, "cancel_safe"):
                driver.cancel_safe(timeout=CANCEL_SECONDS)
            elif _is_lost(connection):
                _end_session(connection, driver.thread_id())
    except Error as error:
        logger.warning("signalbus could not cancel a query that was cut off: %s", error)


def pg_status(connection: BaseDatabaseWrapper) -> int | None:
    """Return libpq's state of a connection; None if it has none."""
    if connection.connection is None or connection.vendor != "postgresql":
        return None
    return int(connection.connection.info.transaction_status)


def is_closed_by_driver(connection: BaseDatabaseWrapper) -> bool:
    """Return whether PyMySQL has closed a connection that Django takes for open, as it does when a query is cut off."""
    driver: Any = connection.connection
    return connection.vendor == "mysql" and driver is not None and not getattr(driver, "open", True)


def _is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a driver for MariaDB or MySQL has given a connection up: interrupted or after ``read_timeout``."""
    if connection.vendor != "mysql" or connection.connection is None:
        return False
    # mysqlclient does not close it; that it is unusable is asked only after an error that may mean so.
    return is_closed_by_driver(connection) or (connection.errors_occurred and not connection.is_usable())


def _end_session(connection: BaseDatabaseWrapper, session: int) -> None:
    """End a session of MariaDB or MySQL, and wait until it is rolled back.

    Args:
        connection: the one that was closed; it says how to connect.
        session: the server's number of it.
    """
    limits = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), CANCEL_SECONDS)
    deadline = time.monotonic() + CANCEL_SECONDS
    with closing(connection.get_new_connection({**connection.get_connection_params(), **limits})) as driver:
        cursor = driver.cursor()
        if cursor.execute(_SESSION, (session,)):
            _kill(cursor, session)
        while cursor.execute(_SESSION, (session,)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def _kill(cursor: Any, session: int) -> None:
    try:
        cursor.execute("KILL %s", (session,))
    except Exception as error:
        if error.args[:1] != (NO_SUCH_SESSION,):  # it has ended since
            raise

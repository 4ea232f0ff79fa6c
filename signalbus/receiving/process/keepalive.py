"""Set TCP keepalive on the server's side of PostgreSQL connections, so that a vanished worker's locks are freed soon.

`worker/bootstrap` turns it on. The server notices within half a minute that the machine of a worker is gone; without
this its locks, and so its deliveries, stay for as long as the operating system keeps a dead connection: two hours.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.db import Error
from django.db.backends.signals import connection_created

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

logger: logging.Logger = logging.getLogger("signalbus")

# Any role may set these for its own sessions. Keepalives detect a vanished client of an idle connection, the user
# timeout one that does not take an answer, the interval one that vanished while a query runs; only the last applies to
# a unix socket.
SETTINGS = {
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
    "client_connection_check_interval": "5s",
}
# The settings that this server has, and that were not set for this client, role or database.
STATEMENT = """
    SELECT set_config(asked.name, asked.wanted, false)
    FROM unnest(%s::text[], %s::text[]) AS asked(name, wanted) JOIN pg_settings USING (name)
    WHERE source NOT IN ('client', 'session', 'user', 'database', 'database user')
"""


def listen() -> None:
    """Prepare each connection that this process, and those that it forks, open from now on."""
    connection_created.connect(_prepare, dispatch_uid="signalbus.sessions")


def _prepare(connection: BaseDatabaseWrapper, **_kwargs: Any) -> None:
    """Set keepalive on a new connection; if that fails, the connection works without it."""
    if connection.vendor != "postgresql":
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute(STATEMENT, [list(SETTINGS), list(SETTINGS.values())])
        if not connection.get_autocommit():
            connection.commit()  # else it would end with the first rollback
    except Error as error:
        logger.warning("signalbus could not set keepalives for the database %r: %s", connection.alias, error)

"""Return the time of the ledger's database, as an expression for a query or as a value.

Only this clock decides what is due, because the clocks of workers and senders differ. All modules of the ledger that
use the ORM take the time from here; raw SQL takes it from the `dialect`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from django.db import connections
from django.db.models import DateTimeField, ExpressionWrapper, functions

from signalbus.ledger.base.dialect import dialect_for

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

LATEST = 10 * 365 * 86400.0  # seconds from now that every database can count to


class Now(functions.Now):
    """The database's time, in as many digits as it keeps.

    SQLite compares texts: with the three digits of Django's own, what is stored for the same millisecond is later.
    Django's own is CURRENT_TIMESTAMP on MariaDB, in the time zone of the session; the columns hold UTC.
    """

    def as_mysql(self, compiler: Any, connection: BaseDatabaseWrapper, **extra_context: Any) -> tuple[str, Any]:
        """Return the SQL."""
        return self.as_sql(compiler, connection, template=dialect_for(connection).now, **extra_context)

    def as_sqlite(self, compiler: Any, connection: BaseDatabaseWrapper, **extra_context: Any) -> tuple[str, Any]:
        """Return the SQL; the template is formatted once more on its way."""
        template = dialect_for(connection).now.replace("%", "%%")
        return self.as_sql(compiler, connection, template=template, **extra_context)


def later(seconds: float) -> Any:
    """Return the database's time in some seconds, limited to the range that every database supports."""
    delta = timedelta(seconds=min(LATEST, max(-LATEST, seconds)))
    return ExpressionWrapper(Now() + delta, output_field=DateTimeField())


def clock_of(alias: str) -> datetime:
    """Return the database's time, converted as its columns are when they are read, to be compared with them.

    Args:
        alias: the ledger's.
    """
    connection, expression = connections[alias], Now()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {dialect_for(connection).now}", [])
        (value,) = cursor.fetchone()
    for convert in (*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection)):
        value = convert(value, expression, connection)
    moment: datetime = value
    return moment


def in_utc(moment: datetime, alias: str) -> datetime:
    """Return a time that was read from a column, as an aware one in UTC.

    PostgreSQL's columns know their time zone. Those of other databases hold UTC, which Django reads as local time
    without ``USE_TZ``, and as the time of a zone that the host's ``DATABASES`` names in ``TIME_ZONE``.

    Args:
        moment: as Django read it.
        alias: the ledger's.
    """
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return moment.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(connection.timezone_name))
    return moment.astimezone(UTC)

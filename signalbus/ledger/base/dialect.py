"""Describe the SQL of each supported database: its clock, its locks, and what an UPDATE can return.

The modules with raw SQL (`recording`, `row_claims`, `duplicates`, `due` and others) build their statements from a
`Dialect`. Raw SQL is for the hot paths: the ORM takes 2.3 to 2.7 times as long for the same rows (decision 0033). All
other statements use the ORM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db import NotSupportedError

from signalbus.compat.django_internals import connection_to
from signalbus.core.fast_instances import uuid_from
from signalbus.models import Delivery, FailedAttempt, Key, Pause, StoredMessage, WorkerRecord

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

MESSAGES: Final = StoredMessage._meta.db_table  # noqa: SLF001 - Django documents it
DELIVERIES: Final = Delivery._meta.db_table  # noqa: SLF001 - as above
KEYS: Final = Key._meta.db_table  # noqa: SLF001 - as above
FAILED_ATTEMPTS: Final = FailedAttempt._meta.db_table  # noqa: SLF001 - as above
PAUSES: Final = Pause._meta.db_table  # noqa: SLF001 - as above
WORKERS: Final = WorkerRecord._meta.db_table  # noqa: SLF001 - as above

HEX_DIGITS: Final = 32  # of a UUID without hyphens, as Django stores it where a database has no type for it


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """The SQL of one kind of database: its clock, how it skips locked rows, and how it returns updated rows.

    Args:
        vendor: as Django calls it.
        now: its clock, which goes on inside a transaction.
        later: its time in ``%s`` seconds.
        after: the time ``%s`` seconds after that in the column ``since``.
        earliest: its function that returns the smallest of several values.
        skip_locked: the end of a SELECT that locks its rows, and skips rows that other transactions have locked; empty
            if the database has one writer at a time.
        returns: whether an UPDATE can choose its rows by such a SELECT, and return the changed rows.
        quote: the quotes around a name that is a reserved word.
    """

    vendor: str
    now: str
    later: str
    after: str
    earliest: str
    skip_locked: str
    returns: bool
    quote: str = '"'

    @property
    def arrays(self) -> bool:
        """Whether a statement takes its rows as an array for each column."""
        return self.vendor == "postgresql"

    @property
    def statement_now(self) -> str:
        """The time at which the statement began: a range of an index can end there, on PostgreSQL not at its clock."""
        return "statement_timestamp()" if self.vendor == "postgresql" else self.now

    def key(self, value: UUID) -> Any:
        """Return an id as the driver takes it."""
        return value if self.vendor == "postgresql" else value.hex

    def free(self, condition: str) -> str:
        """Return the condition by which an UPDATE of deliveries takes only rows that are not locked.

        Not "IN (SELECT ...)": PostgreSQL would plan that as a join, and guess from how many rows it thinks are free
        whether to read the whole table for it.
        """
        if not self.skip_locked:
            return condition
        return f"id = ANY(ARRAY(SELECT id FROM {DELIVERIES} WHERE {condition} ORDER BY id {self.skip_locked}))"

    def whole(self, changes: str, message: str, condition: str) -> str:
        """Return an UPDATE of all deliveries of a message, if all of them meet a condition and none is locked.

        For databases in which an UPDATE can choose its rows by a SELECT.

        Args:
            changes: the assignments.
            message: the message's id, in SQL; the statement contains it three times.
            condition: the condition for each delivery, without values.
        """
        rows = f"FROM {DELIVERIES} WHERE message_id = {message}"
        return (
            f"WITH free AS (SELECT id {rows} AND {condition} {self.skip_locked}) UPDATE {DELIVERIES} SET {changes} "
            f"WHERE message_id = {message} AND (SELECT count(*) FROM free) = (SELECT count(*) {rows})"
        )

    def free_one(self, condition: str) -> str:
        """Return `free` for a condition that only one row can meet: PostgreSQL plans that in a third of the time."""
        if not self.skip_locked:
            return condition
        return f"id = (SELECT id FROM {DELIVERIES} WHERE {condition} {self.skip_locked})"


def as_uuid(value: UUID | str) -> UUID:
    """Return an id that a driver has read, which may be a text if the database or the driver has no type for it.

    Args:
        value: the driver's value.
    """
    if isinstance(value, UUID):
        return value
    return uuid_from(value) if len(value) == HEX_DIGITS else UUID(value)


_SQLITE_TIME: Final = "'%%Y-%%m-%%d %%H:%%M:%%f000'"  # to six digits, as Django writes and compares them
_DIALECTS: Final = {
    "postgresql": Dialect(
        vendor="postgresql",
        now="clock_timestamp()",
        later="(clock_timestamp() + %s * interval '1 second')",
        after="(since + %s * interval '1 second')",
        earliest="least",
        skip_locked="FOR NO KEY UPDATE SKIP LOCKED",
        returns=True,
    ),
    "sqlite": Dialect(
        vendor="sqlite",
        now=f"strftime({_SQLITE_TIME}, 'now')",
        later=f"strftime({_SQLITE_TIME}, 'now', %s || ' seconds')",
        after=f"strftime({_SQLITE_TIME}, since, %s || ' seconds')",
        earliest="min",
        skip_locked="",
        returns=True,
    ),
    "mysql": Dialect(
        vendor="mysql",
        now="utc_timestamp(6)",  # not current_timestamp, which is in the time zone of the session
        later="(utc_timestamp(6) + interval %s second)",
        after="(since + interval %s second)",
        earliest="least",
        skip_locked="FOR UPDATE SKIP LOCKED",
        returns=False,
        quote="`",
    ),
}


def dialect_of(alias: str) -> Dialect:
    """Return the dialect of a database.

    Args:
        alias: the ledger's alias.

    Raises:
        NotSupportedError: the ledger does not support the database.
    """
    return dialect_for(connection_to(alias))


def dialect_for(connection: BaseDatabaseWrapper) -> Dialect:
    """Return the dialect of a connection's database.

    Args:
        connection: the ledger's connection.

    Raises:
        NotSupportedError: the ledger does not support the database.
    """
    vendor = connection.vendor
    try:
        return _DIALECTS[vendor]
    except KeyError:
        raise NotSupportedError(
            f"signalbus keeps its ledger in PostgreSQL, SQLite, MariaDB or MySQL, and {connection.alias!r} is "
            f"{vendor}: route the app `signalbus` to one of those, with a database router."
        ) from None


def takes_several(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a database takes several statements at once: PostgreSQL, unless the driver prepares each."""
    if connection.vendor != "postgresql":
        return False
    options = connection.settings_dict["OPTIONS"]
    return options.get("prepare_threshold") is None and not options.get("server_side_binding")

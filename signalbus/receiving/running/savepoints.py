"""Guard the transaction of a group commit: a savepoint for each delivery, and a check of each statement of a receiver.

`group_commit` uses it. A statement that would end the transaction, or change a setting for the other deliveries, is
refused; that receiver then runs alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from django.db import DatabaseError, Error, transaction
from django.db.transaction import TransactionManagementError

from signalbus.compat.django_internals import innermost_savepoint
from signalbus.receiving.process.query_cancellation import PG_IN_ERROR, pg_status
from signalbus.receiving.process.session_state import MOST_REMEMBERED, leaves_traces, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.transaction import Atomic

# PostgreSQL's codes: lock timeout, deadlock, serialization failure, statement timeout, aborted transaction.
LIMITED = frozenset({"55P03", "40P01", "40001", "57014", "25P03"})
# Statements that end a transaction, or hold until its end: a tenant for row-level security would be set for the
# next receiver as well.
CONCERNS_ALL = re.compile(
    r"(?:^|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)"
    r"|SET\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)|SELECT\s+(?:pg_catalog\.)?set_config"
    r"|DECLARE|CREATE\s+(?:(?:LOCAL|GLOBAL)\s+)?TEMP(?:ORARY)?)\b",
    re.IGNORECASE | re.DOTALL,
)

MOST_CHANGES = 4  # rows that change in a savepoint of SQLite until it is released: few enough for its journal's memory


class Watch:
    """Check the statements of a group commit: refuse those that would affect the other deliveries in it.

    Args:
        together: the database takes several statements at once, so that the end of a savepoint of ours can go with the
            beginning of the next one.
    """

    def __init__(self, *, together: bool) -> None:
        self.must_run_alone: bool = False
        self.ours: bool = False  # a savepoint of ours begins or ends
        self._together = together
        self._ended = ""  # what ends the last one, or rolls back to it, not said yet

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Run a statement, as Django's ``execute_wrapper()`` asks for it."""
        if self.ours:
            if self._together and sql.startswith(("RELEASE", "ROLLBACK TO")):
                self._ended += f"{sql}; "
                return None
            sql, self._ended = self._ended + sql, ""
        elif _concerns_all(sql if type(sql) is str else text_of(sql, context["connection"]), context["connection"]):
            self.must_run_alone = True
            raise TransactionManagementError(
                "a transaction that others share is not to be ended, nor is anything set for all of it; alone it may be"
            )
        try:
            return execute(sql, params, many, context)
        except DatabaseError as error:
            self.must_run_alone = self.must_run_alone or met_a_limit(error)
            raise

    def finish(self, connection: BaseDatabaseWrapper) -> None:
        """Execute what has been put off. If the transaction is not the one that the savepoint began in, this tells.

        Args:
            connection: the transaction's.

        Raises:
            DatabaseError: a receiver ended that transaction, and another has begun: writes of others may be lost.
        """
        if self._ended:
            ended, self._ended = self._ended, ""
            with connection.cursor() as cursor:
                cursor.execute(ended)


def _concerns_all(sql: str, connection: BaseDatabaseWrapper) -> bool:
    return _ends_transaction(sql) or leaves_traces(sql, connection)


def _ends_transaction(sql: str) -> bool:
    return _known_end(sql) if len(sql) <= MOST_REMEMBERED else CONCERNS_ALL.search(sql) is not None


@lru_cache(maxsize=1000)
def _known_end(sql: str) -> bool:
    return CONCERNS_ALL.search(sql) is not None


class Savepoints:
    """The savepoints of a group commit, one after the other: Django's ``atomic()`` for each delivery.

    A savepoint that was rolled back to is kept for the next delivery, because the transaction is then as it was when
    that savepoint began: failures that follow each other cost one statement each. On SQLite it is kept until a few rows
    have changed in it: SQLite copies the pages that change in a savepoint to a journal, plays all of that back at each
    rollback, and moves it from memory to a file when it grows.

    Args:
        watch: the watch of the transaction, which must know the statements of the savepoints.
        connection: the transaction's.
    """

    def __init__(self, watch: Watch, connection: BaseDatabaseWrapper) -> None:
        self._watch = watch
        self._connection = connection
        self._is_bounded = connection.vendor == "sqlite"
        self._changes = 0  # of the connection, when the savepoint began
        self._block: Atomic | None = None  # that has begun
        self._id: str | None = None  # of its savepoint

    def __enter__(self) -> Self:
        """Begin no savepoint yet."""
        return self

    def __exit__(self, *error: Any) -> None:
        """End the one that is open: Django must not take it for the transaction."""
        self._end(*error)

    def begin(self) -> None:
        """Begin the savepoint of a delivery, or use the one that was kept; an error is no failure of its receiver."""
        if self._block is not None:
            self._watch.finish(self._connection)
            return
        block = transaction.atomic(using=self._connection.alias)
        self._ours(block.__enter__)
        self._block, self._id = block, innermost_savepoint(self._connection)
        if self._is_bounded:
            self._changes = self._connection.connection.total_changes

    def release(self) -> None:
        """Release the savepoint of a delivery that has succeeded."""
        self._end(None, None, None)

    def roll_back(self, error: BaseException) -> None:
        """Roll back to the savepoint of a delivery that has failed, and keep it for the next one or release it.

        Args:
            error: the error of its receiver.
        """
        connection, savepoint = self._connection, self._id
        is_whole = connection.in_atomic_block and not connection.closed_in_transaction
        if savepoint is None or not is_whole or innermost_savepoint(connection) != savepoint or self._is_full():
            self._end(type(error), error, error.__traceback__)
            return
        connection.needs_rollback = False
        try:
            self._ours(connection.savepoint_rollback, savepoint)
            if pg_status(connection) == PG_IN_ERROR:  # after a database error: the transaction is to be used now
                self._watch.finish(connection)
        except Error:
            connection.needs_rollback = True  # as in `atomic()`: only the whole transaction can be rolled back

    def _is_full(self) -> bool:
        """Return whether too much has changed since the savepoint began for it to be kept."""
        driver = self._connection.connection
        return self._is_bounded and (driver is None or driver.total_changes - self._changes >= MOST_CHANGES)

    def finish(self) -> None:
        """Release the savepoint that was kept, and execute what has been put off."""
        self.release()
        self._watch.finish(self._connection)

    def _end(self, *error: Any) -> None:
        block, self._block, self._id = self._block, None, None
        if block is not None:
            self._ours(block.__exit__, *error)

    def _ours(self, function: Callable[..., object], *arguments: Any) -> None:
        self._watch.ours = True
        try:
            function(*arguments)
        finally:
            self._watch.ours = False


def met_a_limit(error: BaseException) -> bool:
    """Return whether an error is a lock conflict with another transaction, or one of PostgreSQL's time limits."""
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg 3, and 2
    return isinstance(error, DatabaseError) and code in LIMITED

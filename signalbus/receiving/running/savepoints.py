"""Guard the transaction of a group commit: a savepoint for each delivery, and a check of each statement of a receiver.

`group_commit` uses it. A statement that would end the transaction, or change a setting for the other deliveries, is
refused; that receiver then runs alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, transaction
from django.db.transaction import TransactionManagementError

from signalbus.receiving.process.session_state import MOST_REMEMBERED, leaves_traces, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

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
        """End the last savepoint of ours. If the transaction is not the one that it began in any more, this tells.

        Args:
            connection: the transaction's.

        Raises:
            DatabaseError: a receiver ended that transaction, and another has begun: writes of others may be lost.
        """
        if self._ended:
            with connection.cursor() as cursor:
                cursor.execute(self._ended)


def _concerns_all(sql: str, connection: BaseDatabaseWrapper) -> bool:
    return _ends_transaction(sql) or leaves_traces(sql, connection)


def _ends_transaction(sql: str) -> bool:
    return _known_end(sql) if len(sql) <= MOST_REMEMBERED else CONCERNS_ALL.search(sql) is not None


@lru_cache(maxsize=1000)
def _known_end(sql: str) -> bool:
    return CONCERNS_ALL.search(sql) is not None


class Savepoint:
    """The savepoint of one delivery in a group commit: Django's ``atomic()``, marked as ours for the watch.

    It begins when it is made: an error of that is no failure of the receiver.

    It is released in any case, also after it was rolled back: SQLite copies the pages that change in a savepoint to a
    journal, empties that when no savepoint is open, and moves it from memory to a file when it grows.

    Args:
        watch: the watch of the transaction.
        alias: the alias of its database.
    """

    def __init__(self, watch: Watch, alias: str) -> None:
        self._watch = watch
        self._block = transaction.atomic(using=alias)
        watch.ours = True
        try:
            self._block.__enter__()
        finally:
            watch.ours = False

    def __enter__(self) -> None:
        """Do nothing: the savepoint has begun."""

    def __exit__(self, *error: Any) -> None:
        self._watch.ours = True
        try:
            self._block.__exit__(*error)
        finally:
            self._watch.ours = False


def met_a_limit(error: BaseException) -> bool:
    """Return whether an error is a lock conflict with another transaction, or one of PostgreSQL's time limits."""
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg 3, and 2
    return isinstance(error, DatabaseError) and code in LIMITED

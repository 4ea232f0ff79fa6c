"""Raise an error that names the remedy if the ledger's tables are missing, or lack columns of this version.

`sending/outbox` calls `reject_missing` when a statement failed, so that a `send()` pays nothing for a check; during a
migration it calls `reject_unmigrated` first. System checks and commands call `missing`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from django.apps import apps
from django.conf import settings
from django.db import DatabaseError, connections, transaction

from signalbus.exceptions import MissingTables
from signalbus.ledger.base.deliveries import using
from signalbus.ledger.base.dialect import DELIVERIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The migration that made the last table or column that send() writes to. A later one must not be named: a host's
# migration that was applied before it could not depend on it.
SUFFICIENT: Final = "0003_ledger"
_SENT: Final = f"SELECT ordering_key, position, worker FROM {DELIVERIES} WHERE 1 = 0"  # noqa: S608 - columns that it made

# PostgreSQL's codes and MariaDB's for a table and a column that do not exist; SQLite has texts only.
_CODES: Final = frozenset({"42P01", "42703"})
_NUMBERS: Final = frozenset({1146, 1054})
_TEXTS: Final = re.compile(r"no such table: (?:\w+\.)?signalbus_|table signalbus_\w+ has no column|no such column: ")


def reject_missing(error: DatabaseError) -> None:
    """Raise an error that names the remedy, if a statement failed because the ledger's tables are missing.

    Args:
        error: the error of a statement of the ledger.

    Raises:
        MissingTables: its tables, or columns of theirs, do not exist.
    """
    if is_missing(error):
        raise MissingTables(_remedy()) from error


def reject_unmigrated() -> None:
    """Check that the tables have the columns that send() writes to.

    Raises:
        MissingTables: they have not, or do not exist.
    """
    remedy = _failing([_SENT])
    if remedy is not None:
        raise MissingTables(remedy)


def missing() -> str | None:
    """Return the remedy if one of the ledger's tables or columns does not exist, else None.

    Raises:
        DatabaseError: the database cannot be asked.
    """
    return _failing(_whole(using()))


def _failing(statements: Iterable[str]) -> str | None:
    """Return the remedy if one of these statements names a table or column that does not exist, else None."""
    alias = using()
    try:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    except DatabaseError as error:
        if is_missing(error):
            return _remedy()
        raise
    return None


def _remedy() -> str:
    """Return the remedy for missing tables, in words."""
    alias = using()
    database = "" if alias == "default" else f" --database {alias}"
    text = f"The tables of signalbus are missing in the database {alias!r}, or are those of an earlier version"
    modules = settings.MIGRATION_MODULES
    if "signalbus" in modules and modules["signalbus"] is None:
        return f"{text}: run `manage.py migrate --run-syncdb{database}` (MIGRATION_MODULES leaves out its migrations)."
    return (
        f"{text}: run `manage.py migrate signalbus{database}`. If a migration sends a signal, add "
        f'("signalbus", "{SUFFICIENT}") to the dependencies of that migration.'
    )


def is_missing(error: DatabaseError) -> bool:
    """Return whether a statement failed because a table or column of the ledger does not exist.

    Args:
        error: the statement's error.
    """
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg 3, and 2
    number = error.args[0] if error.args else None
    return code in _CODES or number in _NUMBERS or _TEXTS.search(str(error)) is not None


def _whole(alias: str) -> Iterator[str]:
    """Yield a statement for each table, which names all its columns and reads no row."""
    quote = connections[alias].ops.quote_name
    for model in apps.get_app_config("signalbus").get_models():
        meta = model._meta  # noqa: SLF001 - Django documents it
        columns = ", ".join(quote(str(field.column)) for field in meta.concrete_fields)
        yield f"SELECT {columns} FROM {quote(meta.db_table)} WHERE 1 = 0"  # noqa: S608 - names of our own models

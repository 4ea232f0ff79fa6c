"""Insert a row for each failed attempt, in the transaction that records its end, and delete the oldest (decision 0046).

`settlements`, `attempts/row_claims` and `attempts/lost_attempts` call it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from django.db import connections

from signalbus import conf
from signalbus.ledger.base.dialect import FAILED_ATTEMPTS, Dialect, as_uuid, dialect_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from signalbus.ledger.base.settlements import Settlement

    Failure = tuple[UUID, int, Settlement]  # the delivery, the number of its attempt, and how that ended

LAST = 9  # attempts of a delivery that are kept, beside the first one
# Each so many attempts the traceback is kept again: so there is always one among the last.
TRACEBACK_EVERY = LAST - 1
_COLUMNS = (
    ("delivery_id", "uuid"),
    ("number", "int"),
    ("runtime_ms", "int"),
    ("was_lost", "boolean"),
    ("worker", "text"),
    ("release", "text"),
    ("error", "text"),
    ("error_group", "text"),
    ("traceback", "text"),
)


def keep_failed(failures: Sequence[Failure], *, former: Mapping[UUID, str | None] | None = None, using: str) -> None:
    """Insert a row for each attempt that failed, and delete those that are no longer among a delivery's last.

    Args:
        failures: the attempts, each with its delivery and its number.
        former: by the deliveries' ids, the groups of their attempts before; None to read them.
        using: the ledger's alias, in the transaction that has changed the deliveries.
    """
    dialect = dialect_of(using)
    if former is None:
        later = [failure for failure in failures if failure[1] % TRACEBACK_EVERY != 1]
        former = _groups_before(later, dialect, using) if later else {}
    release = conf.release()
    rows, old = [], []
    for delivery, number, settlement in failures:
        key, (error, traceback) = dialect.key(delivery), settlement.texts()
        if number % TRACEBACK_EVERY != 1 and former.get(delivery) == settlement.error_group:
            traceback = ""
        ended = (settlement.runtime_ms, settlement.was_lost, settlement.worker, release, error)
        rows.append((key, number, *ended, settlement.error_group, traceback))
        if number - LAST > 1:
            old.append((key, number - LAST))
    with connections[using].cursor() as cursor:
        statement = _insertion(dialect, at_once=dialect.arrays and len(rows) > 1)
        if dialect.arrays and len(rows) > 1:
            cursor.execute(statement, [list(column) for column in zip(*rows, strict=True)])
        else:
            cursor.executemany(statement, rows)
        if old:
            cursor.executemany(
                f"DELETE FROM {FAILED_ATTEMPTS} WHERE delivery_id = %s AND number > 1 AND number <= %s", old
            )


@cache
def _insertion(dialect: Dialect, *, at_once: bool) -> str:
    columns = ", ".join(f"{dialect.quote}{name}{dialect.quote}" for name, _ in _COLUMNS)
    head = f"INSERT INTO {FAILED_ATTEMPTS} (ended_at, {columns}) "
    if at_once:
        arrays = ", ".join(f"%s::{kind}[]" for _, kind in _COLUMNS)
        return f"{head}SELECT {dialect.now}, rows.* FROM unnest({arrays}) AS rows"
    return f"{head}VALUES ({dialect.now}, {', '.join(['%s'] * len(_COLUMNS))})"


def _groups_before(failures: Sequence[Failure], dialect: Dialect, using: str) -> dict[UUID, str | None]:
    """Return by the deliveries' ids the groups of the attempts before, where these failed."""
    before = " OR ".join(["(delivery_id = %s AND number = %s)"] * len(failures))
    values = [value for delivery, number, _ in failures for value in (dialect.key(delivery), number - 1)]
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT delivery_id, error_group FROM {FAILED_ATTEMPTS} WHERE {before}", values)
        return {as_uuid(delivery): group for delivery, group in cursor.fetchall()}

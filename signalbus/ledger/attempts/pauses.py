"""Read which receivers, signals and queues are paused, and lock a pause while a delivery is held for it.

A pause is a row that says what waits, since when and why (decision 0047). Workers read all of them every few seconds;
`is_in_force` decides in the transaction that holds a delivery.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from django.db import DatabaseError, connections

from signalbus.ledger.base.deliveries import storable, using
from signalbus.ledger.base.dialect import PAUSES, dialect_of
from signalbus.ledger.base.missing_tables import is_missing

if TYPE_CHECKING:
    from signalbus.ledger.base.dialect import Dialect

# The end of a SELECT that keeps its row from being changed until the transaction ends, and that several transactions
# may have at a time. SQLite has one writer at a time.
_SHARED: Final = {"postgresql": " FOR SHARE", "mysql": " LOCK IN SHARE MODE", "sqlite": ""}


class PauseRow(NamedTuple):
    """The columns of a pause by which a worker decides.

    Args:
        id: the row's id.
        kind: the kind of what is paused: "receiver", "signal", "queue" or "filter".
        name: its name.
        reason: why, as the person said; may be empty.
        by: the person.
        is_over: it was resumed, or its end has come: what it holds is being released.
    """

    id: int
    kind: str
    name: str
    reason: str
    by: str
    is_over: bool

    def held_reason(self) -> str:
        """Return the reason that the ledger shows for a delivery that this pause holds."""
        who = f" by {self.by}" if self.by else ""
        return f"{held_by(self.kind, self.name)}{who}{f': {self.reason}' if self.reason else ''}"


def held_by(kind: str, name: str) -> str:
    """Return how the reason of each delivery begins that a pause holds: by this, its deliveries are found.

    Args:
        kind: the kind of what is paused.
        name: its name.
    """
    return storable(f"{kind}:{name} is paused")


def pause_rows() -> list[PauseRow]:
    """Return all pauses, also those that are over and whose deliveries are being released.

    Returns:
        The pauses; none while their table does not exist, because the migration has not been applied yet.
    """
    alias = using()
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(_all(dialect_of(alias)), ())
            return [PauseRow._make((*row[:-1], bool(row[-1]))) for row in cursor.fetchall()]
    except DatabaseError as error:
        if is_missing(error):
            return []
        raise


def is_in_force(pause: int) -> bool:
    """Return whether a pause is in force, and keep it from being resumed until the transaction ends.

    Args:
        pause: the row's id.
    """
    alias = using()
    with connections[alias].cursor() as cursor:
        cursor.execute(_one(dialect_of(alias)), (pause,))
        return cursor.fetchone() is not None


@cache
def _all(dialect: Dialect) -> str:
    return (
        f"SELECT id, kind, name, reason, {dialect.quote}by{dialect.quote}, {_over(dialect)} FROM {PAUSES} ORDER BY id"  # noqa: S608 - constants
    )


@cache
def _one(dialect: Dialect) -> str:
    return f"SELECT id FROM {PAUSES} WHERE id = %s AND NOT {_over(dialect)}{_SHARED[dialect.vendor]}"  # noqa: S608 - constants


def _over(dialect: Dialect) -> str:
    until = f"{dialect.quote}until{dialect.quote}"
    return f"(resumed_at IS NOT NULL OR ({until} IS NOT NULL AND {until} <= {dialect.now}))"

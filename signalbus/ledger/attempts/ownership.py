"""Own a delivery while it runs: by the lock on its row, or by a claim that is committed first (decision 0028).

The first statement of an atomic receiver's transaction sets its delivery to done, which is true once the transaction
commits. If the worker dies, the database rolls the statement back and frees the row.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction

from signalbus.ledger.base.dialect import DELIVERIES, Dialect, dialect_of
from signalbus.models import OPEN_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from signalbus.ledger.base.deliveries import Settlement

LEASE = 10.0  # seconds after which a committed claim whose row nobody holds is taken for lost


class Taken(NamedTuple):
    """A delivery that this worker may run.

    Args:
        attempt: the number of this attempt, 1 for the first.
        allowance: attempts made before the last retry by hand; the policy counts from there.
        publications: how often it was published again because it was lost; above 0 it is suspect.
    """

    attempt: int
    allowance: int
    publications: int


class Statement(NamedTuple):
    """What takes a row: an UPDATE, and where that returns nothing, a SELECT that locks the row before it."""

    look: str
    update: str


def _statement(dialect: Dialect, changes: str, condition: str, *, waits: bool = False) -> Statement:
    """Write the statement that takes a row.

    Who takes a row that another has just claimed locks it, for the moment in which it finds that it is not to be had:
    whoever has claimed it waits for that.
    """
    columns = "attempts, allowance, publications"
    update = f"UPDATE {DELIVERIES} SET {changes} WHERE "
    if dialect.returns:
        return Statement("", f"{update}{condition if waits else dialect.free_one(condition)} RETURNING {columns}")
    lock = "FOR UPDATE" if waits else dialect.skip_locked
    return Statement(f"SELECT {columns} FROM {DELIVERIES} WHERE {condition} {lock}", f"{update}id = %s")


# Written once: to put them together takes a good part of what it takes to run them.
@cache
def _taking(dialect: Dialect) -> Statement:
    return _statement(dialect, f"attempts = attempts + 1, {_done(dialect)}", _runnable(dialect))


@cache
def _claiming(dialect: Dialect) -> Statement:
    changes = (
        f"state = 'running', attempts = attempts + 1, publications = 0, parked_at = NULL, "
        f"started_at = {dialect.now}, due_at = {dialect.later}, worker = %s"
    )
    return _statement(dialect, changes, _runnable(dialect))


@cache
def _confirming(dialect: Dialect) -> Statement:
    return _statement(dialect, _done(dialect), "id = %s AND state = 'running' AND attempts = %s", waits=True)


def _runnable(dialect: Dialect) -> str:
    return f"id = %s AND {_free(dialect)}"


def _free(dialect: Dialect) -> str:
    # What waits for its next attempt is not due for every late copy of its message. A claim is never taken over: one
    # that was lost is written down as a failed attempt first. A CASE, not ORs: PostgreSQL would look for each partial
    # index whether they imply its condition, each time.
    due = f"due_at <= {dialect.now}"
    return f"CASE WHEN state IN ('published', 'parked') THEN TRUE WHEN state = 'pending' THEN {due} ELSE FALSE END"


def _done(dialect: Dialect) -> str:
    return (
        f"state = 'done', error = '', traceback = '', parked_at = NULL, "
        f"started_at = {dialect.now}, ended_at = {dialect.now}, worker = %s"
    )


def _take(using: str, statement: Statement, values: tuple[Any, ...], where: tuple[Any, ...]) -> Any:
    with connections[using].cursor() as cursor:
        if not statement.look:
            cursor.execute(statement.update, (*values, *where))
            return cursor.fetchone()
        cursor.execute(statement.look, where)
        found = cursor.fetchone()
        if found is not None:
            cursor.execute(statement.update, (*values, where[0]))
        return found


def take(delivery: UUID, *, worker: str, using: str) -> Taken | None:
    """Settle a delivery as done, at the beginning of the transaction in which its receiver is about to run.

    Args:
        delivery: its id.
        worker: who runs it.
        using: the ledger's alias, in a transaction.

    Returns:
        What was taken, or None: it is done, somebody runs it now, or it is not due.
    """
    dialect = dialect_of(using)
    found = _take(using, _taking(dialect), (worker,), (dialect.key(delivery),))
    return None if found is None else _taken(dialect, found)


def can_share(using: str) -> bool:
    """Whether several deliveries may share a commit: not where one of them may wait for others' locks without a limit.

    Args:
        using: the ledger's alias.
    """
    return dialect_of(using).returns  # MySQL counts the time to wait for a lock in whole seconds


def take_together(
    deliveries: Sequence[UUID], *, worker: str, limits: Mapping[str, float], most: int, using: str
) -> tuple[dict[UUID, Taken], Any]:
    """Settle several deliveries as done, at the beginning of the transaction in which all their receivers will run.

    Suspects are not taken: they are to be claimed, and to run alone.

    Args:
        deliveries: their ids.
        worker: who runs them.
        limits: PostgreSQL's settings for the rest of this transaction, in seconds.
        most: attempts that each of them may have; what has had so many is not taken.
        using: the ledger's alias, in a transaction, where `can_share` says so.

    Returns:
        What was taken of them, and when the last of it was, as the driver has it.
    """
    dialect = dialect_of(using)
    condition = f"id IN {_places(deliveries)} AND {_free(dialect)} AND publications = 0 AND attempts < allowance + %s"
    by_key = {dialect.key(delivery): delivery for delivery in deliveries}
    values: list[Any] = [worker, *by_key, most]
    update = (
        f"UPDATE {DELIVERIES} SET attempts = attempts + 1, {_done(dialect)} WHERE {dialect.free(condition)} "
        "RETURNING id, started_at, attempts, allowance, publications"
    )
    if dialect.vendor == "postgresql":  # a query of its own, which is run once; what is taken here waits for nobody
        update += f", (SELECT {' || '.join(['set_config(%s, %s, true)'] * len(limits))})"
        values += [word for name, seconds in limits.items() for word in (name, f"{seconds * 1000:.0f}ms")]
    with connections[using].cursor() as cursor:
        cursor.execute(update, values)
        found = cursor.fetchall()
    return {by_key[row[0]]: Taken(*row[2:5]) for row in found}, max((row[1] for row in found), default=None)


def take_back(deliveries: Sequence[UUID], *, worker: str, until: Any, using: str) -> None:
    """Undo what `take_together` did to those that were not run, or were rolled back, and are to run alone.

    Args:
        deliveries: their ids.
        worker: who took them.
        until: when; what was taken since is somebody else's.
        using: the ledger's alias.
    """
    dialect = dialect_of(using)
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"UPDATE {DELIVERIES} SET state = 'published', attempts = attempts - 1, started_at = NULL, "
            f"ended_at = NULL, worker = '' WHERE id IN {_places(deliveries)} AND state = 'done' AND worker = %s "
            "AND started_at <= %s",
            (*map(dialect.key, deliveries), worker, until),
        )


def settle_taken(failed: Sequence[tuple[UUID, Settlement]], *, using: str) -> None:
    """Write down that some of what this transaction took failed, and was rolled back to before it ran.

    Args:
        failed: deliveries, each with how it ended.
        using: the ledger's alias, in the transaction that took them.
    """
    dialect = dialect_of(using)
    groups: dict[tuple[bool, bool], list[tuple[Any, ...]]] = {}
    for delivery, settlement in failed:
        runtime = None if settlement.took is None else round(settlement.took * 1000)
        row = (settlement.state.value, *settlement.texts(), settlement.delay, runtime, dialect.key(delivery))
        groups.setdefault((settlement.state in OPEN_STATES, settlement.failed), []).append(row)
    with connections[using].cursor() as cursor:
        for (is_open, has_failed), rows in groups.items():
            statement = _settling(dialect, is_open=is_open, failed=has_failed, at_once=dialect.arrays and len(rows) > 1)
            if dialect.arrays and len(rows) > 1:
                cursor.execute(statement, [list(column) for column in zip(*rows, strict=True)])
            else:
                cursor.executemany(statement, rows)


@cache
def _settling(dialect: Dialect, *, is_open: bool, failed: bool, at_once: bool) -> str:
    """Write what `Settlement.fields` says, in the raw: the ORM takes as long as all else that a failure costs.

    Args:
        dialect: the database's.
        is_open: the deliveries will run again.
        failed: their attempts failed.
        at_once: for an array of each value instead of the values of one delivery.
    """
    ended, now = ("NULL" if is_open else dialect.now), dialect.now
    state, error, traceback, runtime, id_ = ["%s"] * 5
    later, rows = dialect.later, ""
    if at_once:
        state, error, traceback, runtime, id_ = "f.state", "f.error", "f.traceback", "f.runtime_ms", "f.id"
        later = later.replace("%s", "f.delay")
        arrays = "%s::text[], %s::text[], %s::text[], %s::float8[], %s::int[], %s::uuid[]"
        rows = f" FROM unnest({arrays}) AS f (state, error, traceback, delay, runtime_ms, id)"
    return (
        f"UPDATE {DELIVERIES} SET state = {state}, parked_at = NULL, error = {error}, traceback = {traceback}, "
        f"due_at = {later}, runtime_ms = {runtime}, ended_at = {ended}{f', failed_at = {now}' if failed else ''}{rows} "
        f"WHERE {DELIVERIES}.id = {id_}"
    )


def _places(deliveries: Sequence[UUID]) -> str:
    return f"({', '.join(['%s'] * len(deliveries))})"


def claim(delivery: UUID, *, worker: str, lease: float, most: int | None = None, using: str) -> Taken | None:
    """Count an attempt before it runs, and commit that: a delivery that ends its worker is bounded.

    Args:
        delivery: its id.
        worker: who runs it.
        lease: seconds after which it is taken for lost, unless somebody holds its row.
        most: attempts that the policy allows: what would be one more is returned, and its row left as it was.
        using: the ledger's alias.

    Returns:
        What was taken, or None.
    """
    dialect = dialect_of(using)
    with transaction.atomic(using=using):
        found = _take(using, _claiming(dialect), (lease, worker), (dialect.key(delivery),))
        taken = None if found is None else _taken(dialect, found)
        if taken is not None and most is not None and taken.attempt - taken.allowance > most:
            transaction.set_rollback(True, using=using)
    return taken


def confirm(delivery: UUID, attempt: int, *, worker: str, using: str) -> bool:
    """Settle a claimed delivery as done, at the beginning of the transaction in which its receiver is about to run.

    Args:
        delivery: its id.
        attempt: the number that its claim gave.
        worker: who runs it.
        using: the ledger's alias, in a transaction.

    Returns:
        False if somebody else has claimed it since.
    """
    dialect = dialect_of(using)
    return _take(using, _confirming(dialect), (worker,), (dialect.key(delivery), attempt)) is not None


def _taken(dialect: Dialect, found: Any) -> Taken:
    attempts, allowance, publications = found
    return Taken(attempts if dialect.returns else attempts + 1, allowance, publications)


def tell_runtime(delivery: UUID, seconds: float, *, using: str) -> None:
    """Write down how long a run took, at the end of its transaction.

    Args:
        delivery: its id.
        seconds: how long.
        using: the ledger's alias.
    """
    dialect = dialect_of(using)
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"UPDATE {DELIVERIES} SET runtime_ms = %s, ended_at = {dialect.now} WHERE id = %s",
            (round(seconds * 1000), dialect.key(delivery)),
        )

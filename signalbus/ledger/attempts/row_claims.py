"""Give a worker the right to run a delivery: by the lock on its row, or by a committed row claim (decision 0028).

The first statement of an atomic receiver's transaction sets its delivery to done, which is true once the transaction
commits. If the worker dies, the database rolls the statement back and frees the row. `receiving/running/attempt`
calls `take`, `claim` and `confirm`; `receiving/running/group_commit` calls the functions for several deliveries.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db import transaction

from signalbus.compat.django_internals import connection_to
from signalbus.ledger.base.dialect import DELIVERIES, Dialect, dialect_for, dialect_of
from signalbus.ledger.base.failed_attempts import keep_failed
from signalbus.models import OPEN_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.ledger.base.settlements import Settlement


_CLEARED: Final = "error = '', traceback = '', error_group = NULL"
# NULL for a delivery without an error.
_GROUP_OF_ERROR: Final = "CASE WHEN error = '' THEN NULL ELSE coalesce(error_group, '') END"


class Taken(NamedTuple):
    """A delivery that this worker owns, and may run.

    Args:
        attempt: the number of this attempt, 1 for the first.
        allowance: attempts made before the last retry by hand; the policy counts from there.
        publications: how often it was lost and published again; above 0 it is suspect.
        group: of its last error, which its row has still (empty if it has none); None if there was no error, or it is
            cleared.
    """

    attempt: int
    allowance: int
    publications: int
    group: str | None = None


class Statement(NamedTuple):
    """The SQL that takes a row: an UPDATE, after a SELECT that locks the row if an UPDATE cannot return it."""

    look: str
    update: str


def _statement(dialect: Dialect, changes: str, condition: str, *, waits: bool = False) -> Statement:
    """Return the statement that takes a row.

    Args:
        dialect: the database's.
        changes: the assignments.
        condition: the condition on which the row is free.
        waits: wait if the row is locked; without it, a locked row is passed over. A worker that confirms its claim must
            wait: another worker may be trying to take the same row, and locks it until it has read that it is claimed.
    """
    columns = "attempts, allowance, publications"
    update = f"UPDATE {DELIVERIES} SET {changes} WHERE "
    if dialect.returns:
        return Statement("", f"{update}{condition if waits else dialect.free_one(condition)} RETURNING {columns}")
    lock = "FOR UPDATE" if waits else dialect.skip_locked
    return Statement(f"SELECT {columns} FROM {DELIVERIES} WHERE {condition} {lock}", f"{update}id = %s")


# Cached: to build a statement takes a good part of the time that it takes to run.
@cache
def _taking(dialect: Dialect) -> Statement:
    return _statement(dialect, f"attempts = attempts + 1, {_done(dialect)}", _runnable(dialect))


@cache
def _claiming(dialect: Dialect, *, noted: bool) -> Statement:
    changes = (
        f"state = 'running', attempts = attempts + 1, publications = 0, parked_at = NULL, "
        f"started_at = {dialect.now}, due_at = {dialect.later}, worker = %s"
    )
    if noted:
        changes += ", error = CASE error WHEN '' THEN %s ELSE error END"
    return _statement(dialect, changes, _runnable(dialect))


@cache
def _confirming(dialect: Dialect) -> Statement:
    return _statement(dialect, _done(dialect), "id = %s AND state = 'running' AND attempts = %s", waits=True)


def _runnable(dialect: Dialect) -> str:
    return f"id = %s AND {_free(dialect)}"


def _free(dialect: Dialect) -> str:
    # A late copy of a message must not run a delivery before its next attempt is due. A claim is never taken over: a
    # lost one is recorded as a failed attempt first. A CASE, not ORs: PostgreSQL would check for each partial index
    # whether they imply its condition, each time.
    due = f"due_at <= {dialect.now}"
    return f"CASE WHEN state IN ('published', 'parked') THEN TRUE WHEN state = 'pending' THEN {due} ELSE FALSE END"


def _done(dialect: Dialect) -> str:
    return f"{_CLEARED}, {_ended(dialect)}"


def _ended(dialect: Dialect) -> str:
    return f"state = 'done', parked_at = NULL, started_at = {dialect.now}, ended_at = {dialect.now}, worker = %s"


def _take(
    connection: BaseDatabaseWrapper, statement: Statement, values: tuple[Any, ...], where: tuple[Any, ...]
) -> Any:
    with connection.cursor() as cursor:
        if not statement.look:
            cursor.execute(statement.update, (*values, *where))
            return cursor.fetchone()
        cursor.execute(statement.look, where)
        found = cursor.fetchone()
        if found is not None:
            cursor.execute(statement.update, (*values, where[0]))
        return found


def take(delivery: UUID, *, worker: str, using: str) -> Taken | None:
    """Set a delivery to done, by the first statement of the transaction in which its receiver runs.

    Args:
        delivery: its id.
        worker: the worker that runs it.
        using: the ledger's alias, in a transaction.

    Returns:
        The delivery; None if it is done, runs elsewhere now, or is not due.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    found = _take(connection, _taking(dialect), (worker,), (dialect.key(delivery),))
    return None if found is None else _taken(dialect, found)


def supports_group_commit(using: str) -> bool:
    """Return whether the database supports group commits: it must limit how long one delivery waits for a lock.

    Args:
        using: the ledger's alias.
    """
    return dialect_of(using).returns  # MySQL counts the time to wait for a lock in whole seconds


def take_together(
    deliveries: Sequence[UUID], *, worker: str, limits: Mapping[str, float], most: int, using: str
) -> tuple[dict[UUID, Taken], Any]:
    """Set several deliveries to done, by the first statement of the transaction in which all their receivers run.

    A suspect delivery is not taken: it must be claimed, and run alone. The error of a retried delivery stays in its
    row, and with it the row's entries in the indexes of failures: mostly the retry fails for the same cause
    (`settle_taken`). Call `clear_errors` for the deliveries that succeed.

    Args:
        deliveries: their ids.
        worker: the worker that runs them.
        limits: PostgreSQL's settings for the rest of this transaction, in seconds.
        most: attempts that each of them may have; a delivery with so many is not taken.
        using: the ledger's alias, in a transaction, where `supports_group_commit` says so.

    Returns:
        The deliveries that were taken, and the time of the last one, as the driver has it.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    condition = (
        f"id IN {_placeholders(deliveries)} AND {_free(dialect)} AND publications = 0 AND attempts < allowance + %s"
    )
    by_key = {dialect.key(delivery): delivery for delivery in deliveries}
    values: list[Any] = [worker, *by_key, most]
    update = (
        f"UPDATE {DELIVERIES} SET attempts = attempts + 1, {_ended(dialect)} WHERE {dialect.free(condition)} "
        f"RETURNING id, started_at, attempts, allowance, publications, {_GROUP_OF_ERROR}"
    )
    if dialect.vendor == "postgresql":  # a query of its own, which is run once; this statement waits for no lock
        update += f", (SELECT {' || '.join(['set_config(%s, %s, true)'] * len(limits))})"
        values += [word for name, seconds in limits.items() for word in (name, f"{seconds * 1000:.0f}ms")]
    with connection.cursor() as cursor:
        cursor.execute(update, values)
        found = cursor.fetchall()
    return {by_key[row[0]]: Taken(*row[2:6]) for row in found}, max((row[1] for row in found), default=None)


def clear_errors(deliveries: Sequence[UUID], *, using: str) -> None:
    """Clear the errors of earlier attempts of deliveries that `take_together` took, and that succeeded.

    Args:
        deliveries: their ids.
        using: the ledger's alias, in the transaction that took them.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {DELIVERIES} SET {_CLEARED} WHERE id IN {_placeholders(deliveries)}",
            [dialect.key(delivery) for delivery in deliveries],
        )


def undo_take(deliveries: Sequence[UUID], *, worker: str, until: Any, using: str) -> None:
    """Set deliveries back to published that `take_together` took: they did not run, or were rolled back.

    Each of them runs alone later.

    Args:
        deliveries: their ids.
        worker: the worker that took them.
        until: the time at which they were taken; rows taken later belong to another worker.
        using: the ledger's alias.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {DELIVERIES} SET state = 'published', attempts = attempts - 1, started_at = NULL, "
            f"ended_at = NULL, worker = '' WHERE id IN {_placeholders(deliveries)} AND state = 'done' AND worker = %s "
            "AND started_at <= %s",
            (*map(dialect.key, deliveries), worker, until),
        )


def settle_taken(
    failed: Sequence[tuple[UUID, int, Settlement]], *, former: Mapping[UUID, str | None], using: str
) -> None:
    """Record failed attempts, in the transaction that took their deliveries.

    The writes of their receivers were rolled back to savepoints before.

    Args:
        failed: for each delivery its id, the number of its attempt and its settlement.
        former: by their ids, the groups of their last errors, as `take_together` returned them.
        using: the ledger's alias, in the transaction that took them.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    groups: dict[tuple[bool, bool, bool], list[tuple[Any, ...]]] = {}
    for delivery, _, settlement in failed:
        group = settlement.error_group or None
        # SQLite writes the entries of an index anew if a statement names one of its columns, whatever the value.
        regroups = dialect.arrays or group is None or former.get(delivery) != group
        texts = (settlement.state.value, *settlement.texts(), *((group,) if regroups else ()))
        row = (*texts, settlement.delay, settlement.runtime_ms, dialect.key(delivery))
        groups.setdefault((settlement.state in OPEN_STATES, settlement.failed, regroups), []).append(row)
    with connection.cursor() as cursor:
        for (is_open, has_failed, regroups), rows in groups.items():
            at_once = dialect.arrays and len(rows) > 1
            statement = _settling(dialect, is_open=is_open, failed=has_failed, regroups=regroups, at_once=at_once)
            if at_once:
                cursor.execute(statement, [list(column) for column in zip(*rows, strict=True)])
            else:
                cursor.executemany(statement, rows)
    kept = [failure for failure in failed if failure[2].worker]
    if kept:
        keep_failed(kept, former=former, using=using)


@cache
def _settling(dialect: Dialect, *, is_open: bool, failed: bool, regroups: bool, at_once: bool) -> str:
    """Return `Settlement.fields` as raw SQL: the ORM takes as long as everything else that a failure costs.

    Args:
        dialect: the database's.
        is_open: the deliveries will run again.
        failed: their attempts failed.
        regroups: the groups of their errors are other ones than in their rows.
        at_once: for an array of each value instead of the values of one delivery.
    """
    ended, now = ("NULL" if is_open else dialect.now), dialect.now
    state, error, traceback, group, runtime, id_ = ["%s"] * 6
    later, rows = dialect.later, ""
    if at_once:
        state, error, traceback, group = "f.state", "f.error", "f.traceback", "f.error_group"
        runtime, id_ = "f.runtime_ms", "f.id"
        later = later.replace("%s", "f.delay")
        arrays = "%s::text[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::int[], %s::uuid[]"
        rows = f" FROM unnest({arrays}) AS f (state, error, traceback, error_group, delay, runtime_ms, id)"
    return (
        f"UPDATE {DELIVERIES} SET state = {state}, parked_at = NULL, error = {error}, traceback = {traceback}, "
        f"{f'error_group = {group}, ' if regroups else ''}due_at = {later}, runtime_ms = {runtime}, ended_at = {ended}"
        f"{f', failed_at = {now}' if failed else ''}{rows} "
        f"WHERE {DELIVERIES}.id = {id_}"
    )


def _placeholders(deliveries: Sequence[UUID]) -> str:
    return f"({', '.join(['%s'] * len(deliveries))})"


def claim(  # noqa: PLR0913 - what the row records of it
    delivery: UUID, *, worker: str, lease: float, most: int | None = None, note: str = "", using: str
) -> Taken | None:
    """Claim a delivery: count its attempt in a commit of its own, before the receiver runs.

    So the attempts are counted even if each of them ends its worker, and their number is limited.

    Args:
        delivery: its id.
        worker: the worker that runs it.
        lease: seconds after which the claim is lost, unless a transaction has locked the row.
        most: the attempts that the policy allows; for an attempt beyond that, the row is left unchanged.
        note: recorded as the error until the end of the attempt, if the delivery has no error of an earlier attempt.
        using: the ledger's alias.

    Returns:
        The delivery with the number of the attempt, which may be one above `most`; None if the delivery is done, runs
        elsewhere, or is not due.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    with transaction.atomic(using=using):
        statement = _claiming(dialect, noted=bool(note))
        values = (lease, worker, note) if note else (lease, worker)
        found = _take(connection, statement, values, (dialect.key(delivery),))
        taken = None if found is None else _taken(dialect, found)
        if taken is not None and most is not None and taken.attempt - taken.allowance > most:
            transaction.set_rollback(True, using=using)
    return taken


def confirm(delivery: UUID, attempt: int, *, worker: str, using: str) -> bool:
    """Set a claimed delivery to done, by the first statement of the transaction in which its receiver runs.

    Args:
        delivery: its id.
        attempt: the number of the claimed attempt.
        worker: the worker that runs it.
        using: the ledger's alias, in a transaction.

    Returns:
        False if another worker has claimed it since.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    return _take(connection, _confirming(dialect), (worker,), (dialect.key(delivery), attempt)) is not None


def _taken(dialect: Dialect, found: Any) -> Taken:
    attempts, allowance, publications = found
    return Taken(attempts if dialect.returns else attempts + 1, allowance, publications)


def tell_runtime(delivery: UUID, seconds: float, *, using: str) -> None:
    """Record the duration of a run, at the end of its transaction.

    Args:
        delivery: its id.
        seconds: the duration.
        using: the ledger's alias.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {DELIVERIES} SET runtime_ms = %s, ended_at = {dialect.now} WHERE id = %s",
            (round(seconds * 1000), dialect.key(delivery)),
        )

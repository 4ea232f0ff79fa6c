"""Deduplicate messages at `send()`: keep a waiting message instead of an equal new one, or replace it by the new.

`sending/deferred` calls it for signals with ``unique=`` (the waiting message stays) and ``debounce=`` (the last
message of a burst replaces those before it). The sender locks the row of the key until its commit, so senders of one
key follow each other on every database. It also locks the waiting message until its commit: that must not run before,
and a rollback must find it unchanged (decision 0035).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db import connections, transaction

from signalbus.events import is_heard
from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import unlocked
from signalbus.ledger.base.dialect import DELIVERIES, KEYS, Dialect, dialect_of
from signalbus.ledger.base.recording import DueTime, record
from signalbus.ledger.sends.cancellation import discard_locked, lock_waiting
from signalbus.models import Delivery, State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from signalbus.ledger.base.recording import Recordable

_OF_BURST: Final = f"(SELECT message FROM {KEYS} WHERE id = %s AND since IS NOT NULL)"


def record_unless_one_waits(
    key: UUID, message: UUID, parts: Sequence[Recordable], *, due: timedelta | datetime | None, using: str
) -> UUID | None:
    """Record a message if no equal one waits; equal messages that are sent later are then not recorded.

    Args:
        key: the key that equal messages share.
        message: its id.
        parts: its parts.
        due: when to publish it; None: at once.
        using: the ledger's alias.

    Returns:
        The id of the waiting message, which no worker begins before this transaction ends; or None.
    """
    dialect = dialect_of(using)
    with transaction.atomic(using=using, savepoint=False):
        standing, _ = _lock(dialect, key, using)
        if standing is not None and lock_waiting(standing, kind="requeued"):
            return standing
        move = (f"UPDATE {KEYS} SET message = %s WHERE id = %s", [dialect.key(message), dialect.key(key)])
        record(parts, using=using, due=due, first=[move])
    return None


def record_last_of_burst(  # noqa: PLR0913 - all that is to be known of a burst
    key: UUID, message: UUID, parts: Sequence[Recordable], *, pause: float, longest: float, using: str
) -> None:
    """Record a message, and discard the one before it in its burst if that still waits for the burst's end.

    A message that is due is not replaced, even if it waits in a queue: else a burst without end would push it to the
    queue's tail for ever. The next burst begins.

    Args:
        key: the key that the messages of a burst share.
        message: the new message's id.
        parts: its parts.
        pause: seconds without another message that end a burst.
        longest: seconds after its beginning that end it anyway.
        using: the ledger's alias.
    """
    dialect = dialect_of(using)
    burst, reason = dialect.key(key), f"replaced by {message}, the next of its burst"
    due = DueTime(_end_of_burst(dialect), (pause, longest, burst))
    move = (_moving(dialect), [reason, dialect.key(message), burst])
    if dialect.returns and not is_heard("discarded"):
        replace = (_replacing(dialect), [burst, reason, burst, burst])
        record(parts, using=using, due=due, first=[(_locking(dialect), [burst]), replace, move])
        return
    with transaction.atomic(using=using, savepoint=False):
        standing, since = _lock(dialect, key, using)
        if standing is not None and since is not None and _lock_not_due(standing, using):
            discard_locked(standing, reason)
        record(parts, using=using, due=due, first=[move])


# Cached, as in `row_claims`.
@cache
def _locking(dialect: Dialect) -> str:
    """Return the statement that inserts the row of a key if there is none, and locks it."""
    insert = f"INSERT INTO {KEYS} (id, position, used_at) VALUES (%s, 0, {dialect.now}) "
    if dialect.vendor == "mysql":
        return f"{insert} ON DUPLICATE KEY UPDATE used_at = VALUES(used_at)"
    return f"{insert} ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at RETURNING message, since"


@cache
def _replacing(dialect: Dialect) -> str:
    """Return the statement that discards the message before, if it waits for its burst's end, and is not locked."""
    waits = f"state = 'pending' AND attempts = 0 AND due_at > {dialect.now}"
    return dialect.whole(f"state = 'discarded', error = %s, ended_at = {dialect.now}", _OF_BURST, waits)


@cache
def _moving(dialect: Dialect) -> str:
    """Return the statement that stores the new message in the key's row; a burst begins if no message was replaced.

    In this order: the assignments of MariaDB and MySQL see those before them.
    """
    replaced = f"SELECT 1 FROM {DELIVERIES} WHERE message_id = {KEYS}.message AND error = %s"
    since = f"CASE WHEN EXISTS ({replaced}) THEN since ELSE {dialect.now} END"
    return f"UPDATE {KEYS} SET since = {since}, message = %s WHERE id = %s"


@cache
def _end_of_burst(dialect: Dialect) -> str:
    return f"(SELECT {dialect.earliest}({dialect.later}, {dialect.after}) FROM {KEYS} WHERE id = %s)"


def _lock(dialect: Dialect, key: UUID, using: str) -> tuple[UUID | None, Any]:
    """Lock the row of a key until the transaction ends, and return its message, and when its burst began."""
    with connections[using].cursor() as cursor:
        cursor.execute(_locking(dialect), [dialect.key(key)])
        if not dialect.returns:
            cursor.execute(f"SELECT message, since FROM {KEYS} WHERE id = %s", [dialect.key(key)])
        message, since = cursor.fetchone()
        return None if message is None else UUID(str(message)), since


def _lock_not_due(message: UUID, using: str) -> bool:
    """Lock the deliveries of a message that are not due until the transaction ends; return whether all were locked."""
    rows = Delivery.objects.using(using).filter(message=message)
    waiting = rows.filter(state=State.PENDING, attempts=0, due_at__gt=Now())
    return unlocked(waiting).count() == rows.count() > 0

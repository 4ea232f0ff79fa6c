"""Cancel a message that no worker has begun: lock its waiting deliveries, and discard them.

`signalbus.cancel()` calls `cancel`. `duplicates` uses the two steps one by one: it locks a waiting message that
replaces a new one, or discards one that is replaced.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.db.models import Case, F, Value, When

from signalbus.events import is_heard
from signalbus.exceptions import SignalBusError
from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import unlocked, using
from signalbus.ledger.base.dialect import DELIVERIES, dialect_of
from signalbus.ledger.base.event_subjects import tell_of_rows
from signalbus.models import WAITING_STATES, Delivery, State

if TYPE_CHECKING:
    from uuid import UUID

    from signalbus.events import Kind
    from signalbus.ledger.base.dialect import Dialect


def lock_waiting(message: UUID, *, kind: Kind | None = None) -> bool:
    """Lock the deliveries of a message until the transaction ends, if no worker has begun any of them.

    A worker skips a locked row, and drops the broker's copy: so published deliveries become due again, and the sweeper
    publishes them after the commit. Rows that another transaction has locked have begun.

    Args:
        message: its id.
        kind: the kind of event to emit for published deliveries; None if the caller emits the next one.

    Returns:
        Whether all its deliveries wait, and are locked until the end of this transaction.
    """
    alias = using()
    dialect = dialect_of(alias)
    if dialect.returns and not (kind is not None and is_heard(kind)):
        with connections[alias].cursor() as cursor:
            cursor.execute(_locking_waiting(dialect), [dialect.key(message)] * 2)
            found = cursor.fetchall()
        return bool(found) and len(found) == found[0][0]
    rows = Delivery.objects.using(alias).filter(message=message)
    # In this order: MySQL's assignments see those before them.
    now_due = Case(When(state=State.PUBLISHED, then=Now()), default=F("due_at"))
    again = Case(When(state=State.PUBLISHED, then=Value(State.PENDING.value)), default=F("state"))
    free = unlocked(rows.filter(state__in=WAITING_STATES, attempts=0, ended_at=None))
    if kind is not None:
        tell_of_rows(kind, free.filter(state=State.PUBLISHED))
    locked = free.update(due_at=now_due, state=again)
    return locked == rows.count() > 0


@cache
def _locking_waiting(dialect: Dialect) -> str:
    """Return the UPDATE that locks a message's waiting deliveries, each returned with the number of all of them."""
    waiting = ", ".join(f"'{state.value}'" for state in WAITING_STATES)
    condition = f"message_id = %s AND state IN ({waiting}) AND attempts = 0 AND ended_at IS NULL"
    return (
        f"UPDATE {DELIVERIES} SET state = CASE WHEN state = 'published' THEN 'pending' ELSE state END, "
        f"due_at = CASE WHEN state = 'published' THEN {dialect.now} ELSE due_at END WHERE {dialect.free(condition)} "
        f"RETURNING (SELECT count(*) FROM {DELIVERIES} WHERE message_id = %s)"
    )


def cancel(message: UUID) -> bool:
    """Discard a message that no worker has begun.

    Args:
        message: its id.

    Returns:
        False, and nothing is discarded, if a worker has begun it, or the ledger does not have it.
    """
    with transaction.atomic(using=using(), savepoint=False):
        return lock_waiting(message) and discard_locked(message, "cancelled")


def discard_locked(message: UUID, reason: str) -> bool:
    """Discard a message whose deliveries this transaction has locked.

    Args:
        message: its id.
        reason: the reason, in words.
    """
    rows = Delivery.objects.using(using()).filter(message=message)
    tell_of_rows("discarded", rows, SignalBusError(reason))
    return bool(rows.update(state=State.DISCARDED, error=reason, ended_at=Now()))

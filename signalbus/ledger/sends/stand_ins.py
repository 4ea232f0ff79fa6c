"""What is not needed twice: while a message waits, it stands for equal ones, or the next one takes its place.

The row of a key is locked until the sender's commit, so senders of one key come one after the other, on every database.
What a sender relies on, it holds until its own commit: it must not run before, and a rollback must find it unchanged.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import connections

from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import unlocked, using
from signalbus.ledger.sends.due_later import discard_held, hold
from signalbus.models import Delivery, Key, State

if TYPE_CHECKING:
    from uuid import UUID


def stand_in(key: UUID, message: UUID) -> UUID | None:
    """Look for an equal message that waits; if there is none, the new one will be it.

    Args:
        key: what equal messages share.
        message: the new one, to be recorded in this transaction if it is needed.

    Returns:
        The one that waits, which nobody begins before this transaction has ended; or None.
    """
    standing: UUID | None = _lock(key).message
    if standing is not None and hold(standing, told="requeued"):
        return standing
    Key.objects.using(using()).filter(id=key).update(message=message)
    return None


def end_of_burst(key: UUID, message: UUID, *, pause: float, longest: float) -> timedelta:
    """Let a message take the place of the one before it in its burst, if that still waits for the burst's end.

    One whose time has come is not replaced, though it may stand in a queue: else a burst without end would push it to
    the queue's tail for ever. The next burst begins.

    Args:
        key: what the messages of a burst share.
        message: the new one, to be recorded in this transaction.
        pause: seconds without another message that end a burst.
        longest: seconds after its beginning that end it anyway.

    Returns:
        How long the new one is to wait.
    """
    row = _lock(key)
    rows = Key.objects.using(using()).filter(id=key)
    if row.message is not None and row.since is not None and _hold_back(row.message):
        discard_held(row.message, f"replaced by {message}, the next of its burst")
        rows.update(message=message)
        lasted = (row.clock - row.since).total_seconds()
        return timedelta(seconds=max(0.0, min(pause, longest - lasted)))
    rows.update(message=message, since=Now())
    return timedelta(seconds=pause)


def _hold_back(message: UUID) -> bool:
    """Keep the sweeper from a message that is not due, until the transaction ends; whether all of it was not."""
    rows = Delivery.objects.using(using()).filter(message=message)
    waiting = rows.filter(state=State.PENDING, attempts=0, due_at__gt=Now())
    return unlocked(waiting).count() == rows.count() > 0


def _lock(key: UUID) -> Any:
    """Return the row of a key, locked until the transaction ends, and the database's time as ``clock``."""
    alias = using()
    keys = Key.objects.using(alias)
    targeted = connections[alias].features.supports_update_conflicts_with_target  # MySQL needs none, and takes none
    keys.bulk_create(
        [Key(id=key, used_at=Now())],
        update_conflicts=True,
        update_fields=["used_at"],
        unique_fields=["id"] if targeted else None,
    )
    return keys.select_for_update().annotate(clock=Now()).get(id=key)

"""What waits for its time, and what is taken back before anybody has begun it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Case, F, Value, When

from signalbus.exceptions import SignalBusError
from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import unlocked, using
from signalbus.ledger.base.event_subjects import tell_of_rows
from signalbus.models import WAITING_STATES, Delivery, State

if TYPE_CHECKING:
    from uuid import UUID

    from django.db.models import QuerySet

    from signalbus.events import Kind


def postpone(message: UUID, due: timedelta | datetime) -> None:
    """Let what has just been recorded wait, in the same transaction.

    Args:
        message: its id.
        due: how long from now, or an aware time in UTC.
    """
    rows = Delivery.objects.using(using()).filter(message=message)
    rows.update(state=State.PENDING, due_at=_moment(due))


def _moment(due: timedelta | datetime) -> Any:
    if isinstance(due, timedelta):
        return later(due.total_seconds())
    if settings.USE_TZ or connections[using()].vendor == "postgresql":
        return due
    return due.astimezone(UTC).replace(tzinfo=None)  # as the clock of these databases


def hold(message: UUID, *, told: Kind | None = None) -> bool:
    """Keep everybody from a message until the transaction ends, if nobody has begun it.

    A worker passes over a row that is locked, and drops the broker's copy: so what is on its way is due again, and the
    sweeper publishes it after the commit. Rows that somebody else has locked have begun.

    Args:
        message: its id.
        told: the kind of event that this is for what was on its way; None if what follows is told instead.

    Returns:
        Whether all of it waits, and does so until the end of this transaction.
    """
    rows = Delivery.objects.using(using()).filter(message=message)
    # In this order: MySQL's assignments see those before them.
    now_due = Case(When(state=State.PUBLISHED, then=Now()), default=F("due_at"))
    again = Case(When(state=State.PUBLISHED, then=Value(State.PENDING.value)), default=F("state"))
    free = unlocked(_unbegun(rows))
    if told is not None:
        tell_of_rows(told, free.filter(state=State.PUBLISHED))
    held = free.update(due_at=now_due, state=again)
    return held == rows.count() > 0


def _unbegun(rows: QuerySet[Delivery]) -> QuerySet[Delivery]:
    return rows.filter(state__in=WAITING_STATES, attempts=0, ended_at=None)


def cancel(message: UUID) -> bool:
    """Discard a message that nobody has begun.

    Args:
        message: its id.

    Returns:
        False, and nothing is discarded, if somebody has, or it is not here.
    """
    with transaction.atomic(using=using(), savepoint=False):
        return hold(message) and discard_held(message, "cancelled")


def discard_held(message: UUID, reason: str) -> bool:
    """Discard a message that this transaction holds.

    Args:
        message: its id.
        reason: why.
    """
    rows = Delivery.objects.using(using()).filter(message=message)
    tell_of_rows("discarded", rows, SignalBusError(reason))
    return bool(rows.update(state=State.DISCARDED, error=reason, ended_at=Now()))

"""Find the last run of a delivery whose process was lost, and record that run as a failed attempt (decision 0044).

`receiving/settling/lost_processes` calls it: it decides whether the process is lost, and what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django.db import transaction

from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import update_unlocked, using
from signalbus.ledger.base.failed_attempts import keep_failed
from signalbus.models import TAKEN_STATES, Delivery, State

if TYPE_CHECKING:
    from uuid import UUID

    from signalbus.ledger.base.deliveries import DeliveryColumns
    from signalbus.ledger.base.settlements import Settlement


class LastRun(NamedTuple):
    """The last run of a delivery, as its row has it.

    Args:
        state: the state of the delivery.
        attempts: how many attempts the row counts.
        allowance: attempts made before the last retry by hand; the policy counts from there.
        worker: the process that claimed or ran it last.
    """

    state: str
    attempts: int
    allowance: int
    worker: str


def last_run(delivery: UUID) -> LastRun | None:
    """Return the last run of a delivery; None if it has no row.

    Args:
        delivery: its id.
    """
    rows = Delivery.objects.using(using()).filter(id=delivery)
    found = rows.values_list(*LastRun._fields).first()
    return None if found is None else LastRun(*found)


def lost_claim(delivery: UUID, *, overdue: bool) -> LastRun | None:
    """Return the claimed run of a delivery whose message the broker has redelivered.

    Args:
        delivery: its id.
        overdue: only if its lease is over: its receiver's transaction does not lock the row.
    """
    rows = Delivery.objects.using(using()).filter(id=delivery, state=State.RUNNING)
    if overdue:
        rows = rows.filter(due_at__lte=Now())
    found = rows.values_list(*LastRun._fields).first()
    return None if found is None else LastRun(*found)


def settle_lost(delivery: UUID, settlement: Settlement, *, seen: int, attempt: int) -> bool:
    """Record that the process of a run was lost. The next run is claimed first, because it may end its process too.

    Args:
        delivery: its id.
        settlement: the end of the attempt.
        seen: the attempts that the row counted when the process was lost.
        attempt: the number of the lost run.

    Returns:
        False if another transaction has locked the row, or the delivery has run since.
    """
    rows = Delivery.objects.using(using()).filter(id=delivery, attempts=seen, state__in=TAKEN_STATES)
    fields: DeliveryColumns = {"attempts": attempt, "publications": 1, **settlement.fields()}
    with transaction.atomic(using=rows.db):
        settled = bool(update_unlocked(rows, **fields))
        if settled and settlement.worker:
            keep_failed([(delivery, attempt, settlement)], using=rows.db)
    return settled

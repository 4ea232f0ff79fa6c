"""Record the end of an attempt in the row of its delivery, in a transaction of its own (decision 0046).

`receiving/settling` calls it through `ledger.attempts`. The end of an attempt whose own transaction records it is
written by `attempts/row_claims`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction

from signalbus import conf
from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import (
    insert,
    new_delivery,
    row_of,
    shorten,
    storable,
    update_free,
    update_unlocked,
    using,
)
from signalbus.ledger.base.failed_attempts import keep_failed
from signalbus.models import OPEN_STATES, Delivery, State

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from uuid import UUID

    from signalbus.ledger.base.deliveries import DeliveryColumns
    from signalbus.wire.message import Message


def _end_of(text: str, most: int) -> str:
    return text[max(0, len(text) - most) :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The recorded end of an attempt.

    Args:
        state: the delivery's state now.
        error: the error, or the reason why it was skipped.
        traceback: the error's traceback; its end is stored.
        delay: seconds until it is due again, if it is pending.
        took: seconds that a failed run took; None if it did not run.
        error_group: the same for failures of one cause (`core/error_groups.py`); empty if it did not fail.
        worker: the process that made an attempt which failed, so that the attempt is kept; else empty.
        was_lost: that process was lost.
        ran: whether an attempt was made; else the time of the last failure stays.
    """

    state: State
    error: str = ""
    traceback: str = ""
    delay: float = 0.0
    took: float | None = None
    error_group: str = ""
    worker: str = ""
    was_lost: bool = False
    ran: bool = True

    @property
    def runtime_ms(self) -> int | None:
        """The duration of a failed run in milliseconds."""
        return None if self.took is None else round(self.took * 1000)

    @property
    def failed(self) -> bool:
        """Whether the attempt failed."""
        return self.ran and self.state in {State.PENDING, State.DEAD}

    def texts(self) -> tuple[str, str]:
        """Return the error and the traceback, as they are stored."""
        return shorten(self.error), storable(_end_of(self.traceback, conf.get().TRACEBACK_CHARS))

    def fields(self) -> DeliveryColumns:
        """Return the columns this settles."""
        error, traceback = self.texts()
        fields: DeliveryColumns = {
            "state": self.state,
            # It ran, so this worker knows it: if it is parked later, its time for that begins anew.
            "parked_at": None,
            "error": error,
            "traceback": traceback,
            "error_group": self.error_group or None,
            "due_at": later(self.delay),
            "ended_at": None if self.state in OPEN_STATES else Now(),
        }
        if self.failed:
            fields["failed_at"] = Now()
        if self.took is not None:
            fields["runtime_ms"] = self.runtime_ms
            if self.worker:  # noted when the row was taken, in the transaction that this attempt has rolled back
                fields["worker"], fields["started_at"] = self.worker, later(-self.took)
        return fields


def record_settled(
    message: Message, receiver: str, queue: str | None, settlement: Settlement, *, suspect: bool = False
) -> None:
    """Record the first attempt of a delivery that had no row.

    Args:
        message: the message.
        receiver: the receiver's id.
        queue: the queue.
        settlement: the end of the attempt.
        suspect: as in `settle`.
    """
    fields: DeliveryColumns = {"attempts": 1, "publications": int(suspect), **settlement.fields()}
    delivery = new_delivery(message.id, receiver, queue, **fields)
    with _keeping(settlement):
        insert([row_of(message)], [delivery])
        if settlement.worker:
            keep_failed([(delivery.pk, 1, settlement)], using=using())


def settle(delivery: UUID, settlement: Settlement, *, seen: int, attempt: int, suspect: bool = False) -> bool:
    """Record the end of an attempt whose own transaction did not record it.

    Args:
        delivery: its id.
        settlement: the end of the attempt.
        seen: the attempts that its row counts, if no other worker has run it since.
        attempt: the number of this attempt.
        suspect: publish it alone, and claim it before it runs, from now on.

    Returns:
        False if another worker runs it now, or has settled it.
    """
    with _keeping(settlement):
        settled = _settle_row(delivery, settlement, seen=seen, attempt=attempt, suspect=suspect)
        if settled and settlement.worker:
            keep_failed([(delivery, attempt, settlement)], using=using())
    return settled


def _keeping(settlement: Settlement) -> AbstractContextManager[Any]:
    """Open a transaction if the attempt is kept: with the change of its delivery, or not at all."""
    return transaction.atomic(using=using()) if settlement.worker else nullcontext()


def _settle_row(delivery: UUID, settlement: Settlement, *, seen: int, attempt: int, suspect: bool) -> bool:
    rows = Delivery.objects.using(using()).filter(id=delivery, attempts=seen)
    fields: DeliveryColumns = {"attempts": attempt, "publications": int(suspect), **settlement.fields()}
    # A transaction that has locked the row of a claim only reads it, for a moment: if this one skipped it, it would run
    # again.
    if seen == attempt and rows.filter(state=State.RUNNING).update(**fields):
        return True
    update = update_unlocked if settlement.worker else update_free  # whose transaction is open already
    return bool(update(rows.filter(state__in=OPEN_STATES), **fields))


def last_failure(delivery: UUID) -> tuple[str, str, str]:
    """Return the error of a delivery's last failed attempt, empty if none has failed, its traceback, and its group.

    Args:
        delivery: its id.
    """
    rows = Delivery.objects.using(using()).filter(id=delivery)
    error, traceback, group = rows.values_list("error", "traceback", "error_group").first() or ("", "", "")
    return error, traceback, group or ""


def skip(message: Message, queue: str | None, reason: str) -> bool:
    """Record an open message without receivers as skipped.

    Args:
        message: an open message.
        queue: the queue that it came from.
        reason: the reason.

    Returns:
        False if it had ended before.
    """
    waiting = new_delivery(message.id, "", queue)
    with transaction.atomic(using=using()):
        insert([row_of(message)], [waiting])
        whole = Delivery.objects.using(using()).filter(id=waiting.pk, state__in=OPEN_STATES)
        return bool(whole.update(**Settlement(state=State.SKIPPED, error=reason).fields()))

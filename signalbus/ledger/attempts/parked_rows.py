"""Park what this worker's code does not know (decision 0003), and record texts that were refused as dead.

`receiving/routing/verification` parks and refuses texts, `receiving/settling/parking` parks deliveries, and the
sweeper tries them again, with growing delays, until ``PARK_SECONDS`` are over.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid5

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from signalbus import conf
from signalbus.core.error_groups import group_of_fate
from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import (
    insert,
    new_delivery,
    receivers_of,
    record_deliveries,
    row_of,
    shorten,
    storable,
    update_free,
    using,
)
from signalbus.models import WAITING_STATES, Delivery, State, StoredMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from signalbus.ledger.base.deliveries import DeliveryColumns
    from signalbus.wire.message import Message

# Names are hashed into ids, so these must never change.
REFUSED = UUID("5f0d6f0e-6a55-4d0e-9d8f-7f5b54ad9d10")
OVERFLOW = uuid5(REFUSED, "overflow")

PARK_FIRST, PARK_LONGEST = 2.0, 300.0  # seconds between two tries of what is unknown
REFUSED_CHARS = 2000  # kept of a text that was refused


class Text(NamedTuple):
    """The row of a text that could not be verified or read.

    Args:
        id: the id of its message's row, computed from the text.
        state: the state of its delivery now; None if it was left unchanged.
    """

    id: UUID
    state: State | None


def park(message: Message, receivers: Iterable[str], queue: str | None, reason: str) -> dict[str, State]:
    """Park deliveries that this worker's code does not know; they are retried for ``PARK_SECONDS``, a day by default.

    Args:
        message: the message.
        receivers: the recipients it does not know; one empty name for the whole message.
        queue: the queue that it came from, and will be published to again.
        reason: the unknown signal or receiver, in words.

    Returns:
        The state of the delivery to each recipient: parked, or dead if its time is over; without deliveries that run or
        have ended elsewhere.
    """
    error = shorten(reason)
    rows = [_parked(message.id, receiver, queue, error) for receiver in receivers]
    with transaction.atomic(using=using()):
        insert([row_of(message)], rows)
        return _park_again([row.pk for row in rows], error)


def park_text(text: str, *, sealed: bool, queue: str | None, reason: str) -> Text:
    """Park a text that this worker cannot read yet: of a newer version, or signed with an unknown key.

    Args:
        text: the body if it was verified, else the whole text, which must not be signed here.
        sealed: whether it was not verified.
        queue: the queue that it came from.
        reason: the error, in words.

    Returns:
        Its id and its state: parked, or dead because its time is over.
    """
    id_ = uuid5(REFUSED, hashlib.sha256(text.encode()).hexdigest())
    error = shorten(reason)
    parked = _parked(id_, "", queue, error)
    with transaction.atomic(using=using()):
        insert([StoredMessage(id=id_, text=text, sealed=sealed, created_at=Now())], [parked])
        return Text(id_, _park_again([parked.pk], error).get(""))


def _parked(message: UUID, receiver: str, queue: str | None, error: str) -> Delivery:
    return new_delivery(message, receiver, queue, state=State.PARKED, parked_at=Now(), error=error)


def _park_again(ids: Sequence[UUID], error: str) -> dict[str, State]:
    """Set the next try of parked deliveries: after as long as they have been parked, so the delays double."""
    # A delivery that runs or is held has met a worker that knows it: one that does not must leave it alone.
    rows = Delivery.objects.using(using()).filter(id__in=ids, state__in=WAITING_STATES).exclude(state=State.HELD)
    again = rows.annotate(clock=Now(), since=Coalesce("parked_at", Now()))
    states = ((row.receiver, _postpone(row, row.since, row.clock, error)) for row in again)
    return {receiver: state for receiver, state in states if state is not None}


def postpone_row(row: Delivery, reason: str) -> State | None:
    """Postpone the next try of a parked row of `take_due`.

    Args:
        row: the row, as `Publishable.load` returns it.
        reason: the error, in words.

    Returns:
        Its state: parked, or dead because its time is over; None if it runs, or has ended elsewhere.
    """
    clock: datetime = row.clock  # type: ignore[attr-defined]  # annotated by load()
    return _postpone(row, row.parked_at or clock, clock, shorten(reason))


def _postpone(row: Delivery, since: datetime, clock: datetime, error: str) -> State | None:
    age = (clock - since).total_seconds()
    state = State.PARKED if age < conf.get().PARK_SECONDS else State.DEAD
    group = group_of_fate("parked", row.receiver)
    fields: DeliveryColumns = {
        "state": state, "parked_at": since, "error": error, "error_group": group, "failed_at": Now()
    }  # fmt: skip
    if state == State.PARKED:
        fields["due_at"] = later(min(PARK_LONGEST, max(PARK_FIRST, age)))
    else:
        fields |= {"ended_at": Now(), "error": f"given up after {age:.0f} s: {error}"}
    waiting = Delivery.objects.using(using()).filter(id=row.pk, state__in=WAITING_STATES)
    return state if update_free(waiting, **fields) else None


def unpark() -> int:
    """Make all parked deliveries due: a worker that has just started may have newer code.

    Returns:
        The number of deliveries.
    """
    return update_free(Delivery.objects.using(using()).filter(state=State.PARKED), due_at=Now())


def bury(delivery: UUID, error: str, group: str) -> bool:
    """Make a delivery that `take_due` returned dead: its text can never be read.

    Args:
        delivery: its id.
        error: the error's text.
        group: the error's group.

    Returns:
        False if it runs, or has ended elsewhere.
    """
    dead = Delivery.objects.using(using()).filter(id=delivery, state=State.PUBLISHED)
    return bool(
        update_free(dead, state=State.DEAD, error=shorten(error), error_group=group, failed_at=Now(), ended_at=Now())
    )


def open_parked(delivery: Delivery, message: Message) -> None:
    """Replace a parked text, which can be read now, by the deliveries of its message.

    Args:
        delivery: the parked delivery of the whole text.
        message: the message that was read.
    """
    with transaction.atomic(using=using()):
        record_deliveries(message, receivers_of(message), delivery.queue)
        StoredMessage.objects.using(using()).filter(id=delivery.message_id).delete()


def refuse(text: str, reason: str, queue: str | None) -> Text:
    """Quarantine a refused text as a dead letter; beyond ``KEEP_REFUSED`` of them, only count it.

    Args:
        text: the text; only its beginning is stored.
        reason: the reason of the refusal.
        queue: the queue that it came from.

    Returns:
        Its id and the state of its delivery, dead; the state is None if it was only counted.
    """
    id_ = uuid5(REFUSED, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    if _count_again(id_):
        return Text(id_, None)
    most = conf.get().KEEP_REFUSED
    stored = Delivery.objects.using(using()).filter(
        state=State.DEAD, receiver="", message__sealed=True, message__signal="", parked_at=None
    )
    if stored[:most].count() >= most:
        if _count_again(OVERFLOW):
            return Text(id_, None)
        id_, text, reason = OVERFLOW, "", "more refused texts; attempts counts them"
    row = StoredMessage(id=id_, text=storable(text[:REFUSED_CHARS]), sealed=True, created_at=Now())
    dead = new_delivery(
        id_,
        "",
        queue,
        state=State.DEAD,
        error=shorten(reason),
        error_group=group_of_fate("refused", ""),
        failed_at=Now(),
        ended_at=Now(),
    )
    with transaction.atomic(using=using()):
        insert([row], [dead])
        # The text is counted apart from the insertion: another process may have inserted the same one since.
        _count_again(id_)
    return Text(id_, State.DEAD)


def _count_again(message: UUID) -> bool:
    rows = Delivery.objects.using(using()).filter(message_id=message, state=State.DEAD)
    return bool(rows.update(attempts=F("attempts") + 1, failed_at=Now()))

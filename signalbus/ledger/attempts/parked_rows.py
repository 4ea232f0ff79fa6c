"""Park messages that this worker's code does not know (decision 0003), and quarantine texts that fail verification."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid5

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from signalbus import conf
from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import (
    insert,
    keep,
    new_delivery,
    receivers_of,
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

    from signalbus.wire.message import Message

# Names are hashed into ids, so these must never change.
REFUSED = UUID("5f0d6f0e-6a55-4d0e-9d8f-7f5b54ad9d10")
OVERFLOW = uuid5(REFUSED, "overflow")

PARK_FIRST, PARK_LONGEST = 2.0, 300.0  # seconds between two tries of what is unknown
REFUSED_CHARS = 2000  # kept of a text that was refused


class Text(NamedTuple):
    """A text that could not be opened, as the ledger has it.

    Args:
        id: that of its message's row, which follows from the text.
        state: where its delivery stands now; None if that was left as it was.
    """

    id: UUID
    state: State | None


def park(message: Message, receivers: Iterable[str], queue: str | None, reason: str) -> dict[str, State]:
    """Keep what this worker does not know, to be tried again for a day.

    Args:
        message: the message.
        receivers: the recipients it does not know; one empty name for the whole message.
        queue: where it came from, and will go to again.
        reason: what is unknown.

    Returns:
        Where the delivery to each recipient stands now, parked, or dead if its day is over; without those that run or
        have ended elsewhere.
    """
    error = shorten(reason)
    rows = [_parked(message.id, receiver, queue, error) for receiver in receivers]
    with transaction.atomic(using=using()):
        insert([row_of(message)], rows)
        return _park_again([row.pk for row in rows], error)


def park_text(text: str, *, sealed: bool, queue: str | None, reason: str) -> Text:
    """Keep a text that this worker cannot open yet: of a newer version, or with a key that it does not hold.

    Args:
        text: the body if it was verified, else the whole text, which nobody here may sign.
        sealed: it was not verified.
        queue: where it came from.
        reason: what stands against it.

    Returns:
        Its id, and whether it is parked, or dead because its day is over.
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
    """Set when parked deliveries are tried again: after as long as they have been parked, so the delays double."""
    # What runs now, runs where it is known: a worker that lacks it must not take it from there.
    rows = Delivery.objects.using(using()).filter(id__in=ids, state__in=WAITING_STATES)
    again = rows.annotate(clock=Now(), since=Coalesce("parked_at", Now()))
    states = ((row.receiver, _postpone(row.pk, row.since, row.clock, error)) for row in again)
    return {receiver: state for receiver, state in states if state is not None}


def postpone_row(row: Delivery, reason: str) -> State | None:
    """Park a row of `take_due` a while longer.

    Args:
        row: the row, as `Publishable.load` returns it.
        reason: what is unknown.

    Returns:
        Whether it is parked, or dead because its day is over; None if it runs, or has ended elsewhere.
    """
    clock: datetime = row.clock  # type: ignore[attr-defined]  # annotated by load()
    return _postpone(row.pk, row.parked_at or clock, clock, shorten(reason))


def _postpone(delivery: UUID, since: datetime, clock: datetime, error: str) -> State | None:
    age = (clock - since).total_seconds()
    state = State.PARKED if age < conf.get().PARK_SECONDS else State.DEAD
    fields: dict[str, Any] = {"state": state, "parked_at": since, "error": error, "failed_at": Now()}
    if state == State.PARKED:
        fields["due_at"] = later(min(PARK_LONGEST, max(PARK_FIRST, age)))
    else:
        fields |= {"ended_at": Now(), "error": f"given up after {age:.0f} s: {error}"}
    waiting = Delivery.objects.using(using()).filter(id=delivery, state__in=WAITING_STATES)
    return state if update_free(waiting, **fields) else None


def unpark() -> int:
    """Make all that is parked due: a worker that has just started may know more than the last one.

    Returns:
        How many deliveries.
    """
    return update_free(Delivery.objects.using(using()).filter(state=State.PARKED), due_at=Now())


def bury(delivery: UUID, error: str) -> bool:
    """Make a delivery that `take_due` returned dead: it will never open.

    Args:
        delivery: its id.
        error: why.

    Returns:
        False if it runs, or has ended elsewhere.
    """
    dead = Delivery.objects.using(using()).filter(id=delivery, state=State.PUBLISHED)
    return bool(update_free(dead, state=State.DEAD, error=shorten(error), failed_at=Now(), ended_at=Now()))


def open_parked(delivery: Delivery, message: Message) -> None:
    """Replace a text that could not be opened by the message in it.

    Args:
        delivery: the parked one, of the whole text.
        message: what was in it.
    """
    with transaction.atomic(using=using()):
        keep(message, receivers_of(message), delivery.queue)
        StoredMessage.objects.using(using()).filter(id=delivery.message_id).delete()


def refuse(text: str, reason: str, queue: str | None) -> Text:
    """Keep a text that was refused as a dead letter; beyond the first of them, only count.

    Args:
        text: what came; only its beginning is kept.
        reason: why it was refused.
        queue: where it came from.

    Returns:
        Its id and the state of its delivery, dead; the state is None if it was only counted.
    """
    id_ = uuid5(REFUSED, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    if _count_again(id_):
        return Text(id_, None)
    most = conf.get().KEEP_REFUSED
    kept = Delivery.objects.using(using()).filter(
        state=State.DEAD, receiver="", message__sealed=True, message__signal="", parked_at=None
    )
    if kept[:most].count() >= most:
        if _count_again(OVERFLOW):
            return Text(id_, None)
        id_, text, reason = OVERFLOW, "", "more refused texts; attempts counts them"
    row = StoredMessage(id=id_, text=storable(text[:REFUSED_CHARS]), sealed=True, created_at=Now())
    ended = {"state": State.DEAD, "attempts": 1, "error": shorten(reason), "failed_at": Now(), "ended_at": Now()}
    insert([row], [new_delivery(id_, "", queue, **ended)])
    return Text(id_, State.DEAD)


def _count_again(message: UUID) -> bool:
    rows = Delivery.objects.using(using()).filter(message_id=message, state=State.DEAD)
    return bool(rows.update(attempts=F("attempts") + 1, failed_at=Now()))

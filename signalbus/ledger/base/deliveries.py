"""Insert rows of deliveries after the send, and change the state of rows that no other transaction has locked.

All packages of the ledger use these functions. The rows of a `send()` are inserted by `recording`; the end of an
attempt is written by `settlements`, or by `attempts/row_claims` in the receiver's own transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

from django.db import connections, router, transaction
from django.db.models import Case, F, TextField, Value, When

from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.event_subjects import tell_of_rows
from signalbus.ledger.base.recording import WAIT
from signalbus.models import OPEN_STATES, Delivery, State, StoredMessage
from signalbus.wire.message import delivery_id, to_body
from signalbus.wire.subjects import subjects_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from django.db.models import QuerySet
    from django.db.models.expressions import Combinable

    from signalbus.events import Kind
    from signalbus.wire.message import Message

CHUNK = 500  # ids in one statement: SQLite takes a limited number of parameters
ERROR_CHARS = 2000  # kept of an error's text


class DeliveryColumns(TypedDict, total=False):
    """New values for columns of a delivery: type checkers find a name that is no column, and a value that is wrong."""

    state: State
    attempts: int | Combinable
    allowance: int | Combinable
    publications: int | Combinable
    due_at: datetime | Combinable
    ordering_key: str
    position: int
    parked_at: datetime | Combinable | None
    held_reason: str | None
    error: str
    traceback: str
    error_group: str | None
    failed_at: datetime | Combinable | None
    started_at: datetime | Combinable | None
    ended_at: datetime | Combinable | None
    runtime_ms: int | None
    worker: str


def using() -> str:
    """Return the alias of the ledger's database."""
    return router.db_for_write(Delivery)


def storable(text: str) -> str:
    """Return a text that every database takes: PostgreSQL refuses NUL, and UTF-8 has no lone surrogates."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def shorten(error: str) -> str:
    """Return the beginning of an error's text, storable; a receiver's error may be as long as it likes."""
    return storable(error if len(error) <= ERROR_CHARS else f"{error[:ERROR_CHARS]}…")


def insert(messages: Sequence[StoredMessage], deliveries: Sequence[Delivery]) -> None:
    """Insert rows that do not exist yet; a delivery that 0.1 gave another id keeps that id."""
    alias = using()
    with transaction.atomic(using=alias):
        there = Delivery.objects.using(alias).filter(message__in=[message.pk for message in messages])
        ids = {(message, receiver): id_ for message, receiver, id_ in there.values_list("message", "receiver", "id")}
        for delivery in deliveries:
            delivery.id = ids.get((delivery.message_id, delivery.receiver), delivery.id)
        StoredMessage.objects.using(alias).bulk_create(messages, ignore_conflicts=True)
        # Not those that exist: PostgreSQL would wait for a transaction that has locked one, to ignore it then.
        new = [delivery for delivery in deliveries if (delivery.message_id, delivery.receiver) not in ids]
        Delivery.objects.using(alias).bulk_create(new, ignore_conflicts=True)
        for start in range(0, len(new), CHUNK):
            some = [delivery.pk for delivery in new[start : start + CHUNK]]
            tell_of_rows("recorded", Delivery.objects.using(alias).filter(id__in=some))


def earlier_id(message: UUID, receiver: str) -> UUID | None:
    """Return the id that 0.1 gave a delivery; None if it has none but ours.

    Args:
        message: the message's id.
        receiver: the receiver's, as the message carries it.
    """
    rows = Delivery.objects.using(using()).filter(message=message, receiver=receiver)
    ids = set(rows.values_list("id", flat=True))
    ours = delivery_id(message, receiver)
    if ours not in ids:
        return ids.pop() if ids else None
    if len(ids) > 1:  # a worker of 0.1 parked what a newer sender had recorded
        rows.exclude(id=ours).delete()
    return None


def row_of(message: Message) -> StoredMessage:
    """Return the row of a message."""
    subject, more_subjects = subjects_in(message.payload)
    return StoredMessage(
        id=message.id,
        signal=message.signal,
        text=to_body(message),
        subject=subject,
        more_subjects=more_subjects,
        root=None if message.root == message.id else message.root,
        created_at=Now(),
    )


def new_delivery(message: UUID, receiver: str, queue: str | None, **fields: Unpack[DeliveryColumns]) -> Delivery:
    """Return the row of a delivery, due at once by default."""
    fields.setdefault("due_at", Now())
    return Delivery(
        id=delivery_id(message, receiver),
        message_id=message,
        receiver=receiver,
        queue=queue or "",
        created_at=Now(),
        **fields,
    )


def record_unpublished(
    items: Sequence[tuple[Message, str | None]], error: str, cause: BaseException | None = None
) -> None:
    """Record messages that the broker did not take as pending; the sweeper publishes them.

    Args:
        items: messages with their queues.
        error: the broker's error, in words.
        cause: the exception, for listeners.
    """
    noted = shorten(error)
    unrecorded = [(message, queue) for message, queue in items if not message.recorded]
    if unrecorded:
        rows = [
            new_delivery(message.id, receiver, queue, error=noted)
            for message, queue in unrecorded
            for receiver in receivers_of(message)
        ]
        insert([row_of(message) for message, _ in unrecorded], rows)
    recorded = [
        delivery_id(message.id, receiver)
        for message, _ in items
        if message.recorded
        for receiver in receivers_of(message)
    ]
    for start in range(0, len(recorded), CHUNK):
        waiting = Delivery.objects.using(using()).filter(id__in=recorded[start : start + CHUNK], state=State.PUBLISHED)
        # The broker may have taken them, and only its answer be lost: then they may run by now.
        update_free(waiting, kind="requeued", cause=cause, state=State.PENDING, due_at=Now(), error=noted)


def receivers_of(message: Message) -> tuple[str, ...]:
    """Return the recipients of a message; one empty id if the workers resolve them."""
    return ("",) if message.recipients is None else message.recipients


def record_deliveries(message: Message, receivers: Iterable[str], queue: str | None, *, note: str = "") -> None:
    """Record deliveries that had no row until now, for the sweeper to publish.

    Args:
        message: the message.
        receivers: the ids of their receivers.
        queue: their queue.
        note: recorded as their error, until they have run.
    """
    insert([row_of(message)], [new_delivery(message.id, receiver, queue, error=note) for receiver in receivers])


def unlocked(rows: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Lock the rows that no other transaction has locked, until this one ends, and return them; wait for none."""
    alias = rows.db
    features = connections[alias].features
    if not features.has_select_for_update_skip_locked:
        return rows  # one writer at a time: a transaction that ran one has ended by now
    locked = rows.select_for_update(skip_locked=True, no_key=features.has_select_for_no_key_update)
    return Delivery.objects.using(alias).filter(id__in=list(locked.values_list("id", flat=True)))


def update_free(
    rows: QuerySet[Delivery],
    *,
    kind: Kind | None = None,
    cause: BaseException | None = None,
    **fields: Unpack[DeliveryColumns],
) -> int:
    """Update the rows that no other transaction has locked; wait for none.

    Args:
        rows: the rows.
        kind: the kind of event to emit for each of them; None if the caller does that.
        cause: the cause, for listeners.
        fields: the new values of columns.

    Returns:
        The number of updated rows.
    """
    with transaction.atomic(using=rows.db):
        return update_unlocked(rows, kind=kind, cause=cause, **fields)


def update_unlocked(
    rows: QuerySet[Delivery],
    *,
    kind: Kind | None = None,
    cause: BaseException | None = None,
    **fields: Unpack[DeliveryColumns],
) -> int:
    """Do what `update_free` does, in the caller's transaction."""
    free = unlocked(rows)
    if kind is not None:
        tell_of_rows(kind, free, cause)
    return free.update(**fields)


def renew(claims: Iterable[tuple[UUID, int]], lease: float) -> None:
    """Extend the leases of claims whose receivers still run, and have no lock on their rows.

    Args:
        claims: deliveries, each with the number of its attempt.
        lease: seconds from now.
    """
    for delivery, attempt in claims:
        rows = Delivery.objects.using(using()).filter(id=delivery, attempts=attempt, state=State.RUNNING)
        rows.update(due_at=later(lease))


def unclaim(delivery: UUID, attempt: int) -> bool:
    """Undo a claim whose run does not count: its code is unknown here, or the worker's shutdown interrupted it.

    The broker still has its message, and redelivers it.

    Args:
        delivery: its id.
        attempt: the number of the claimed attempt.

    Returns:
        False if the claim is not this attempt's any more: another worker runs the delivery.
    """
    rows = Delivery.objects.using(using()).filter(id=delivery, attempts=attempt, state=State.RUNNING)
    return bool(rows.update(state=State.PUBLISHED, attempts=F("attempts") - 1, due_at=later(WAIT)))


def return_due(deliveries: Iterable[UUID], delay: float) -> None:
    """Make deliveries that could not be published pending again.

    Args:
        deliveries: their ids.
        delay: seconds until they are due again.
    """
    rows = Delivery.objects.using(using()).filter(id__in=list(deliveries), state=State.PUBLISHED)
    update_free(rows, kind="requeued", state=State.PENDING, due_at=later(delay))


def release(deliveries: Iterable[UUID], *, note: str) -> None:
    """Requeue the deliveries of a lost batch: the sweeper publishes each alone, because one of them ended the worker.

    A claim is left to its worker, which may be alive and have lost only its broker connection; else to the sweeper.

    Args:
        deliveries: their ids.
        note: recorded as the error of those that have none of an earlier attempt, until they have run.
    """
    alias = using()
    with transaction.atomic(using=alias):
        rows = unlocked(Delivery.objects.using(alias).filter(state=State.PUBLISHED, id__in=list(deliveries)))
        tell_of_rows("requeued", rows)
        error = Case(When(error="", then=Value(note)), default=F("error"), output_field=TextField())
        rows.update(state=State.PENDING, publications=F("publications") + 1, due_at=Now(), error=error)


def expand(message: Message, receivers: Iterable[tuple[str, str | None]]) -> bool:
    """Replace the delivery of a whole message by one for each of its receivers, unless it has ended.

    Args:
        message: an open message.
        receivers: their ids, with their queues.

    Returns:
        Whether a row of the whole message was open, and is done now.
    """
    with transaction.atomic(using=using()):
        whole = Delivery.objects.using(using()).filter(message=message.id, receiver="")
        was_open = unlocked(whole.filter(state__in=OPEN_STATES)).update(
            state=State.DONE, error="", traceback="", error_group=None, parked_at=None, ended_at=Now()
        )
        if not was_open and (message.recorded or whole.exists()):
            return False  # this is a late copy, or the message was cancelled, or is about to be
        insert([row_of(message)], [new_delivery(message.id, receiver, queue) for receiver, queue in receivers])
    return bool(was_open)

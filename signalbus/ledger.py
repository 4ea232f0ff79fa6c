"""What went wrong, or must not be forgotten: reads and writes of the ledger's tables.

Only the database's clock decides what is due. Times that people read come from it as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from django.db import connections, router, transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Q
from django.db.models.functions import Coalesce, Now

from signalbus import conf
from signalbus.models import OPEN_STATES, Delivery, Message, State
from signalbus.wire.message import to_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from django.db.models import QuerySet

    from signalbus.wire.message import Message as WireMessage

# Names are hashed into ids, so these must never change.
REFUSED = UUID("5f0d6f0e-6a55-4d0e-9d8f-7f5b54ad9d10")
OVERFLOW = uuid5(REFUSED, "overflow")

PARK_FIRST, PARK_LONGEST = 2.0, 300.0  # seconds between two tries of what is unknown
REFUSED_CHARS = 2000  # kept of a text that was refused


def using() -> str:
    """Return the alias of the ledger's database."""
    return router.db_for_write(Delivery)


def delivery_id(message: UUID, receiver: str) -> UUID:
    """Return the id of a delivery: it follows from what is delivered to whom, so it is the same over all attempts."""
    return uuid5(message, receiver)


def _later(seconds: float) -> Any:
    return ExpressionWrapper(Now() + timedelta(seconds=seconds), output_field=DateTimeField())


def storable(text: str, most: int | None = None) -> str:
    """Return a text that every database takes: PostgreSQL refuses NUL, and UTF-8 has no lone surrogates.

    Args:
        text: any text.
        most: characters to keep, from the end.
    """
    safe = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    return safe if most is None else safe[-most:]


def _insert(message: Message, deliveries: Iterable[Delivery]) -> None:
    alias = using()
    with transaction.atomic(using=alias):
        Message.objects.using(alias).bulk_create([message], ignore_conflicts=True)
        Delivery.objects.using(alias).bulk_create(deliveries, ignore_conflicts=True)


def _row(message: WireMessage) -> Message:
    return Message(id=message.id, signal=message.signal, text=to_body(message), created_at=Now())


def _delivery(message: UUID, receiver: str, queue: str | None, **fields: Any) -> Delivery:
    fields.setdefault("due_at", Now())
    return Delivery(
        id=delivery_id(message, receiver),
        message_id=message,
        receiver=receiver,
        queue=queue or "",
        created_at=Now(),
        **fields,
    )


def keep_unpublished(items: Sequence[tuple[WireMessage, str | None]], error: str) -> None:
    """Keep messages that the broker did not take; the sweeper publishes them.

    Args:
        items: messages with their queues.
        error: what the broker said.
    """
    alias = using()
    rows = [
        _delivery(message.id, receiver, queue, error=storable(error))
        for message, queue in items
        for receiver in _receivers(message)
    ]
    with transaction.atomic(using=alias):
        Message.objects.using(alias).bulk_create([_row(message) for message, _ in items], ignore_conflicts=True)
        Delivery.objects.using(alias).bulk_create(rows, ignore_conflicts=True)


def _receivers(message: WireMessage) -> tuple[str, ...]:
    """Return whom a message names; one empty name where the workers look that up."""
    return ("",) if message.recipients is None else message.recipients


def keep(message: WireMessage, receivers: Iterable[str], queue: str | None) -> None:
    """Keep deliveries that had no row until now, to be published each alone.

    Args:
        message: what was being delivered.
        receivers: to whom.
        queue: through which queue.
    """
    _insert(_row(message), [_delivery(message.id, receiver, queue) for receiver in receivers])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What is written down about an attempt that ended.

    Args:
        state: where the delivery stands now.
        error: what went wrong, or why it was skipped.
        traceback: the end of it.
        delay: seconds until it is due again, for what is pending.
    """

    state: State
    error: str = ""
    traceback: str = ""
    delay: float = 0.0

    def fields(self) -> dict[str, Any]:
        """Return the columns this settles."""
        failed = self.state in {State.PENDING, State.DEAD}
        fields: dict[str, Any] = {
            "state": self.state,
            "error": storable(self.error),
            "traceback": storable(self.traceback, conf.get().TRACEBACK_CHARS),
            "due_at": _later(self.delay),
            "ended_at": None if self.state in OPEN_STATES else Now(),
        }
        if failed:
            fields["failed_at"] = Now()
        return fields


def keep_settled(message: WireMessage, receiver: str, queue: str | None, settlement: Settlement) -> None:
    """Write down the first attempt of a delivery that had no row.

    Args:
        message: what was delivered.
        receiver: to whom.
        queue: through which queue.
        settlement: how the attempt ended.
    """
    _insert(_row(message), [_delivery(message.id, receiver, queue, attempts=1, **settlement.fields())])


def claim(delivery: UUID, *, redelivered: bool, lease: float) -> tuple[int, int] | None:
    """Take the right to run a delivery, and count the attempt before it runs: a poison message is bounded.

    Args:
        delivery: its id.
        redelivered: the broker gives it out again, so whoever had claimed it is gone.
        lease: seconds after which the claim is taken for lost.

    Returns:
        The attempt's number, which fences the settlement, and the allowance; None if there is nothing to run.
    """
    free = Q(state__in=(State.PENDING, State.PUBLISHED, State.PARKED)) | Q(state=State.RUNNING, due_at__lte=Now())
    if redelivered:
        free |= Q(state=State.RUNNING)
    alias = using()
    with transaction.atomic(using=alias):
        mine = Delivery.objects.using(alias).filter(free, id=delivery)
        if not mine.update(state=State.RUNNING, attempts=F("attempts") + 1, due_at=_later(lease)):
            return None
        return Delivery.objects.using(alias).values_list("attempts", "allowance").get(id=delivery)


def settle(delivery: UUID, attempt: int, settlement: Settlement) -> bool:
    """Write down how an attempt ended.

    Args:
        delivery: its id.
        attempt: the number that its claim gave.
        settlement: how it ended.

    Returns:
        False if the claim is not this attempt's any more: somebody else runs it.
    """
    rows = Delivery.objects.using(using()).filter(id=delivery, attempts=attempt, state=State.RUNNING)
    return bool(rows.update(**settlement.fields()))


def park(message: WireMessage, receivers: Iterable[str], queue: str | None, reason: str) -> None:
    """Keep what this worker does not know, to be tried again for a day.

    Args:
        message: the message.
        receivers: the recipients it does not know; one empty name for the whole message.
        queue: where it came from, and will go to again.
        reason: what is unknown.
    """
    receivers = list(receivers)
    error = storable(reason)
    rows = [
        _delivery(message.id, receiver, queue, state=State.PARKED, parked_at=Now(), error=error) for receiver in receivers
    ]
    _insert(_row(message), rows)
    _park_again([row.pk for row in rows], error)


def park_text(text: str, *, sealed: bool, queue: str | None, reason: str) -> None:
    """Keep a text that this worker cannot open yet: of a newer version, or with a key that it does not hold.

    Args:
        text: the body if it was verified, else the whole text, which nobody here may sign.
        sealed: it was not verified.
        queue: where it came from.
        reason: what stands against it.
    """
    id_ = uuid5(REFUSED, hashlib.sha256(text.encode()).hexdigest())
    error = storable(reason)
    row = Message(id=id_, text=text, sealed=sealed, created_at=Now())
    parked = _delivery(id_, "", queue, state=State.PARKED, parked_at=Now(), due_at=_later(PARK_FIRST), error=error)
    _insert(row, [parked])
    _park_again([parked.pk], error)


def _park_again(ids: Sequence[UUID], error: str) -> None:
    """Set when parked deliveries are tried again: after as long as they have been parked, so the delays double."""
    rows = Delivery.objects.using(using()).filter(id__in=ids, state__in=OPEN_STATES)
    for row in rows.annotate(clock=Now(), since=Coalesce("parked_at", Now())):
        postpone(row.pk, row.since, (row.clock - row.since).total_seconds(), error)


def postpone_row(row: Delivery, error: str) -> None:
    """Park a row of `take_due` a while longer."""
    since = row.parked_at or row.created_at
    postpone(row.pk, since, (row.clock - since).total_seconds(), storable(error))  # type: ignore[attr-defined]


def bury(row: Delivery, error: str) -> None:
    """Make a row of `take_due` dead: it will never open."""
    dead = Delivery.objects.using(using()).filter(id=row.pk, state=State.PUBLISHED)
    dead.update(state=State.DEAD, error=storable(error), failed_at=Now(), ended_at=Now())


def postpone(delivery: UUID, since: datetime, age: float, error: str) -> None:
    """Park a delivery a while longer; after a day it is dead.

    Args:
        delivery: its id.
        since: when it was parked first.
        age: seconds since then.
        error: what is unknown.
    """
    fields: dict[str, Any] = {"state": State.PARKED, "parked_at": since, "error": error, "failed_at": Now()}
    if age >= conf.get().PARK_SECONDS:
        fields |= {"state": State.DEAD, "ended_at": Now(), "error": f"given up after {age:.0f} s: {error}"}
    else:
        fields["due_at"] = _later(min(PARK_LONGEST, max(PARK_FIRST, age)))
    Delivery.objects.using(using()).filter(id=delivery, state__in=OPEN_STATES).update(**fields)


def unpark() -> int:
    """Make all that is parked due: a worker that has just started may know more than the last one.

    Returns:
        How many deliveries.
    """
    return Delivery.objects.using(using()).filter(state=State.PARKED).update(due_at=Now())


def refuse(text: str, reason: str, queue: str | None) -> None:
    """Keep a text that was refused as a dead letter; beyond the first of them, only count.

    Args:
        text: what came; only its beginning is kept.
        reason: why it was refused.
        queue: where it came from.
    """
    id_ = uuid5(REFUSED, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    if _count_again(id_):
        return
    alias = using()
    kept = Message.objects.using(alias).filter(sealed=True, deliveries__state=State.DEAD).count()
    if kept >= conf.get().KEEP_REFUSED:
        if _count_again(OVERFLOW):
            return
        id_, text, reason = OVERFLOW, "", "more refused texts; attempts counts them"
    row = Message(id=id_, text=storable(text)[:REFUSED_CHARS], sealed=True, created_at=Now())
    ended = {"state": State.DEAD, "attempts": 1, "error": storable(reason), "failed_at": Now(), "ended_at": Now()}
    _insert(row, [_delivery(id_, "", queue, **ended)])


def _count_again(message: UUID) -> bool:
    rows = Delivery.objects.using(using()).filter(message_id=message, state=State.DEAD)
    return bool(rows.update(attempts=F("attempts") + 1, failed_at=Now()))


def anything_due() -> bool:
    """Whether `take_due` would find anything: a read that takes no lock, for the many times that it would not."""
    return Delivery.objects.using(using()).filter(state__in=OPEN_STATES, due_at__lte=Now()).exists()


def take_due(limit: int, lease: float) -> list[Delivery]:
    """Take deliveries that are due to be published; no other sweeper gets them meanwhile.

    Args:
        limit: how many at most.
        lease: seconds after which they are taken for lost.

    Returns:
        The deliveries with their messages, in the state they were in.
    """
    alias = using()
    features = connections[alias].features
    with transaction.atomic(using=alias):
        rows = Delivery.objects.using(alias).filter(state__in=OPEN_STATES, due_at__lte=Now()).order_by("due_at")
        if features.has_select_for_update_skip_locked:
            rows = rows.select_for_update(skip_locked=True, of=("self",))
        taken = list(rows.select_related("message").annotate(clock=Now())[:limit])
        ids = [row.pk for row in taken]
        Delivery.objects.using(alias).filter(id__in=ids).update(state=State.PUBLISHED, due_at=_later(lease))
    return taken


def return_due(deliveries: Iterable[UUID], delay: float) -> None:
    """Give back deliveries that could not be published.

    Args:
        deliveries: their ids.
        delay: seconds until they are due again.
    """
    rows = Delivery.objects.using(using()).filter(id__in=list(deliveries), state=State.PUBLISHED)
    rows.update(state=State.PENDING, due_at=_later(delay))


def release(deliveries: Iterable[UUID]) -> None:
    """Give up claims that were lost in company; the sweeper publishes each again, those that had run alone.

    Args:
        deliveries: their ids.
    """
    rows = Delivery.objects.using(using()).filter(id__in=list(deliveries), state__in=(State.PUBLISHED, State.RUNNING))
    rows.update(state=State.PENDING, due_at=Now())


def expand(message: WireMessage, receivers: Iterable[tuple[str, str | None]]) -> None:
    """Replace the delivery of a whole message by one for each receiver that was found for it.

    Args:
        message: an open message.
        receivers: ids, with the queues they are delivered through.
    """
    with transaction.atomic(using=using()):
        _insert(_row(message), [_delivery(message.id, receiver, queue) for receiver, queue in receivers])
        whole = Delivery.objects.using(using()).filter(id=delivery_id(message.id, ""))
        whole.update(state=State.DONE, error="", ended_at=Now())


def open_parked(delivery: Delivery, message: WireMessage) -> None:
    """Replace a text that could not be opened by the message in it.

    Args:
        delivery: the parked one, of the whole text.
        message: what was in it.
    """
    with transaction.atomic(using=using()):
        keep(message, _receivers(message), delivery.queue)
        Message.objects.using(using()).filter(id=delivery.message_id).delete()


def failed(*, state: str | None = None) -> QuerySet[Delivery]:
    """Return what failed and was not mended: dead, parked, or waiting for its next attempt.

    Args:
        state: only what is in this state.

    Returns:
        The deliveries with their messages, the latest failure first.
    """
    rows = Delivery.objects.using(using()).select_related("message")
    if state is not None:
        return rows.filter(state=state).order_by("-created_at")
    troubled = Q(state__in=(State.DEAD, State.PARKED)) | (Q(state__in=OPEN_STATES) & ~Q(error=""))
    return rows.filter(troubled).order_by("-failed_at", "-created_at")


def retry(ids: Sequence[UUID] | None) -> int:
    """Give dead, skipped and waiting deliveries a fresh allowance, due at once.

    Args:
        ids: which; None for all that failed.

    Returns:
        How many. What was refused cannot be retried: nobody vouches for it.
    """
    rows = failed() if ids is None else Delivery.objects.using(using()).filter(id__in=ids)
    rows = rows.exclude(Q(state__in=(State.DONE, State.RUNNING)) | Q(state=State.DEAD, message__sealed=True))
    chosen = list(rows.values_list("id", flat=True))
    again = Delivery.objects.using(using()).filter(id__in=chosen)
    return again.update(state=State.PENDING, allowance=F("attempts"), due_at=Now(), parked_at=None, ended_at=None)


def discard(ids: Sequence[UUID]) -> int:
    """Give deliveries up for good; they stay visible until they are purged.

    Args:
        ids: which.

    Returns:
        How many; those that have ended well, or run now, are left alone.
    """
    rows = Delivery.objects.using(using()).filter(id__in=ids).exclude(state__in=(State.DONE, State.RUNNING))
    return rows.update(state=State.DISCARDED, ended_at=Now())


def purge(seconds: float, *, batch: int = 1000) -> int:
    """Delete what ended well, was skipped or discarded, and is old; in small batches, so that nobody waits for it.

    Args:
        seconds: how old.
        batch: how many rows a transaction deletes.

    Returns:
        How many deliveries.
    """
    alias = using()
    ended = Delivery.objects.using(alias).filter(
        state__in=(State.DONE, State.SKIPPED, State.DISCARDED), ended_at__lte=_later(-seconds)
    )
    purged = 0
    while ids := list(ended.values_list("id", flat=True)[:batch]):
        messages = list(Message.objects.using(alias).filter(deliveries__in=ids).values_list("id", flat=True).distinct())
        purged += Delivery.objects.using(alias).filter(id__in=ids).delete()[0]
        Message.objects.using(alias).filter(id__in=messages, deliveries=None).delete()
    return purged

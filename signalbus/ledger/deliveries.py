"""The life of a delivery that has a row: kept, due, published, claimed, settled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import connections, router, transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Q
from django.db.models.functions import Now

from signalbus import conf
from signalbus.models import OPEN_STATES, Delivery, State, StoredMessage
from signalbus.wire.message import delivery_id, to_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from signalbus.wire.message import Message

ERROR_CHARS = 2000  # kept of an error's text
LATEST = 10 * 365 * 86400.0  # seconds from now that every database can count to


def using() -> str:
    """Return the alias of the ledger's database."""
    return router.db_for_write(Delivery)


def later(seconds: float) -> Any:
    """Return the database's time in some seconds; what no database can count to is cut off."""
    delta = timedelta(seconds=min(LATEST, max(-LATEST, seconds)))
    return ExpressionWrapper(Now() + delta, output_field=DateTimeField())


def storable(text: str) -> str:
    """Return a text that every database takes: PostgreSQL refuses NUL, and UTF-8 has no lone surrogates."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def shorten(error: str) -> str:
    """Return the beginning of an error's text, storable; a receiver's error may be as long as it likes."""
    return storable(error if len(error) <= ERROR_CHARS else f"{error[:ERROR_CHARS]}…")


def insert(messages: Iterable[StoredMessage], deliveries: Iterable[Delivery]) -> None:
    """Insert rows, without those that are there already."""
    alias = using()
    with transaction.atomic(using=alias):
        StoredMessage.objects.using(alias).bulk_create(messages, ignore_conflicts=True)
        Delivery.objects.using(alias).bulk_create(deliveries, ignore_conflicts=True)


def row_of(message: Message) -> StoredMessage:
    """Return the row of a message."""
    return StoredMessage(id=message.id, signal=message.signal, text=to_body(message), created_at=Now())


def new_delivery(message: UUID, receiver: str, queue: str | None, **fields: Any) -> Delivery:
    """Return the row of a delivery, due at once if nothing else is said."""
    fields.setdefault("due_at", Now())
    return Delivery(
        id=delivery_id(message, receiver),
        message_id=message,
        receiver=receiver,
        queue=queue or "",
        created_at=Now(),
        **fields,
    )


def keep_unpublished(items: Sequence[tuple[Message, str | None]], error: str) -> None:
    """Keep messages that the broker did not take; the sweeper publishes them.

    Args:
        items: messages with their queues.
        error: what the broker said.
    """
    rows = [
        new_delivery(message.id, receiver, queue, error=shorten(error))
        for message, queue in items
        for receiver in receivers_of(message)
    ]
    insert([row_of(message) for message, _ in items], rows)


def receivers_of(message: Message) -> tuple[str, ...]:
    """Return whom a message names; one empty name where the workers look that up."""
    return ("",) if message.recipients is None else message.recipients


def keep(message: Message, receivers: Iterable[str], queue: str | None) -> None:
    """Keep deliveries that had no row until now, to be published by the sweeper.

    Args:
        message: what was being delivered.
        receivers: to whom.
        queue: through which queue.
    """
    insert([row_of(message)], [new_delivery(message.id, receiver, queue) for receiver in receivers])


def _end_of(text: str, most: int) -> str:
    return text[max(0, len(text) - most) :]


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
            # It ran, so all of it was known here: the day of what is unknown is over, and the next one begins anew.
            "parked_at": None,
            "error": shorten(self.error),
            "traceback": storable(_end_of(self.traceback, conf.get().TRACEBACK_CHARS)),
            "due_at": later(self.delay),
            "ended_at": None if self.state in OPEN_STATES else Now(),
        }
        if failed:
            fields["failed_at"] = Now()
        return fields


def keep_settled(message: Message, receiver: str, queue: str | None, settlement: Settlement) -> None:
    """Write down the first attempt of a delivery that had no row.

    Args:
        message: what was delivered.
        receiver: to whom.
        queue: through which queue.
        settlement: how the attempt ended.
    """
    insert([row_of(message)], [new_delivery(message.id, receiver, queue, attempts=1, **settlement.fields())])


def claim(delivery: UUID, *, redelivered: bool, lease: float) -> tuple[int, int] | None:
    """Take the right to run a delivery, and count the attempt before it runs: a poison message is bounded.

    Args:
        delivery: its id.
        redelivered: the broker gives it out again, so whoever had claimed it is gone.
        lease: seconds after which the claim is taken for lost.

    Returns:
        The attempt's number, which fences the settlement, and the allowance; None if there is nothing to run.
    """
    # What waits for its next attempt is not due for every late copy of its message.
    free = Q(state__in=(State.PUBLISHED, State.PARKED)) | Q(state__in=(State.PENDING, State.RUNNING), due_at__lte=Now())
    if redelivered:
        free |= Q(state=State.RUNNING)
    alias = using()
    with transaction.atomic(using=alias):
        mine = Delivery.objects.using(alias).filter(free, id=delivery)
        if not mine.update(state=State.RUNNING, attempts=F("attempts") + 1, due_at=later(lease)):
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


def give_back(delivery: UUID, attempt: int, *, lease: float) -> bool:
    """Undo a claim whose run does not count: what it was for is not known here, or the worker itself cut it off.

    The broker has its message still, and gives it out again: if the sweeper published a second one, whoever got the
    later of the two would take the claim away from the other.

    Args:
        delivery: its id.
        attempt: the number that its claim gave.
        lease: seconds after which the broker's message is taken for lost.

    Returns:
        False if the claim is not this attempt's any more: somebody else runs it.
    """
    rows = Delivery.objects.using(using()).filter(id=delivery, attempts=attempt, state=State.RUNNING)
    return bool(rows.update(state=State.PUBLISHED, attempts=F("attempts") - 1, due_at=later(lease)))


def anything_due() -> bool:
    """Whether `take_due` would find anything: a read that takes no lock, for the many times that it would not."""
    return Delivery.objects.using(using()).filter(state__in=OPEN_STATES, due_at__lte=Now()).exists()


def take_due(limit: int, lease: float) -> list[Delivery]:
    """Take deliveries that are due to be published; no other sweeper gets them meanwhile.

    Args:
        limit: how many at most.
        lease: seconds after which they are taken for lost.

    Returns:
        The deliveries with their messages, and the database's time as ``clock``.
    """
    alias = using()
    with transaction.atomic(using=alias):
        due = Delivery.objects.using(alias).filter(state__in=OPEN_STATES, due_at__lte=Now()).order_by("due_at")
        if connections[alias].features.has_select_for_update_skip_locked:
            due = due.select_for_update(skip_locked=True)
        taken = Delivery.objects.using(alias).filter(id__in=list(due.values_list("id", flat=True)[:limit]))
        taken.update(state=State.PUBLISHED, due_at=later(lease))
        return list(taken.select_related("message").annotate(clock=Now()).order_by("created_at"))


def return_due(deliveries: Iterable[UUID], delay: float) -> None:
    """Give back deliveries that could not be published.

    Args:
        deliveries: their ids.
        delay: seconds until they are due again.
    """
    rows = Delivery.objects.using(using()).filter(id__in=list(deliveries), state=State.PUBLISHED)
    rows.update(state=State.PENDING, due_at=later(delay))


def release(deliveries: Iterable[UUID]) -> None:
    """Give up claims that were lost in company; the sweeper publishes each again, and alone what had begun to run.

    Args:
        deliveries: their ids.
    """
    rows = Delivery.objects.using(using()).filter(id__in=list(deliveries), state__in=(State.PUBLISHED, State.RUNNING))
    rows.update(state=State.PENDING, due_at=Now())


def skip(message: Message, queue: str | None, reason: str) -> None:
    """End a whole message that nobody receives, visibly.

    Args:
        message: an open message.
        queue: where it came from.
        reason: why it is skipped.
    """
    waiting = new_delivery(message.id, "", queue)
    with transaction.atomic(using=using()):
        insert([row_of(message)], [waiting])
        whole = Delivery.objects.using(using()).filter(id=waiting.pk, state__in=OPEN_STATES)
        whole.update(**Settlement(state=State.SKIPPED, error=reason).fields())


def expand(message: Message, receivers: Iterable[tuple[str, str | None]]) -> None:
    """Replace the delivery of a whole message by one for each receiver that was found for it.

    Args:
        message: an open message.
        receivers: ids, with the queues they are delivered through.
    """
    with transaction.atomic(using=using()):
        insert([row_of(message)], [new_delivery(message.id, receiver, queue) for receiver, queue in receivers])
        whole = Delivery.objects.using(using()).filter(id=delivery_id(message.id, ""))
        whole.update(state=State.DONE, error="", ended_at=Now())

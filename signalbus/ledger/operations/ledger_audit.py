"""Audit the ledger: count each delivery by its state, find the missing ones, and make those due again.

``manage.py signalbus audit`` calls it, and prints the result with `management/audit_report`. A delivery is missing if
it is lost by the sweeper's own rule (`sweeps/due`), or if its message names it and it has no row. The text of a
recorded message names all its recipients, and a purge deletes a message with all its rows or with none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from django.db import transaction
from django.db.models import Count, F, Q
from django.db.models.functions import Substr

from signalbus.exceptions import TextError
from signalbus.ledger.attempts.ordering import before
from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import CHUNK, insert, new_delivery, receivers_of, unlocked, using
from signalbus.ledger.base.event_subjects import tell_of_rows
from signalbus.ledger.base.recording import WAIT
from signalbus.ledger.base.sequence_numbers import assign_positions, order_of
from signalbus.ledger.sweeps.due import open_queues
from signalbus.models import OPEN_STATES, Delivery, QueueState, State, StoredMessage
from signalbus.registration.registry import registry
from signalbus.wire.message import Message, delivery_id, from_body

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from django.db.models import QuerySet

    from signalbus.ledger.base.deliveries import DeliveryColumns

HEAD_CHARS = 4096  # of a text, in which its header nearly always ends: the payload says nothing here

RETRYING = "retrying"  # of what is pending: it has failed, and waits for its next attempt
_ENDED = [state.word for state in State if state not in OPEN_STATES]
COLUMNS = tuple(dict.fromkeys([*_ENDED, RETRYING, *(state.word for state in OPEN_STATES)]))


class Evidence(NamedTuple):
    """The evidence that the queues give, beside the markers that workers returned.

    Args:
        empty: queues that are empty, and have no message in flight.
        asked_at: when that was asked, by this process's monotonic clock.
    """

    empty: frozenset[str] = frozenset()
    asked_at: float = 0.0


class Lost(NamedTuple):
    """A published delivery that is lost.

    Args:
        id: its id.
        signal: the name of its message's signal.
        receiver: its receiver's id.
        ordering_key: its ordering key; empty without.
    """

    id: UUID
    signal: str
    receiver: str
    ordering_key: str


class Absent(NamedTuple):
    """A delivery that a message names, and that has no row.

    Args:
        message: the message.
        receiver: the receiver's id, as the message names it.
    """

    message: Message
    receiver: str


@dataclass(slots=True)
class Account:
    """The deliveries of a signal to a receiver, counted by their state.

    Args:
        counts: deliveries by word: done, skipped, dead, discarded, retrying, waiting, running.
        missing: ids of those that are missing.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    missing: list[UUID] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """The number of deliveries that were sent."""
        return sum(self.counts.values()) + len(self.missing)


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit.

    Args:
        accounts: by signal and receiver.
        lost: ids of published deliveries that are lost.
        absent: deliveries without a row.
    """

    accounts: Mapping[tuple[str, str], Account]
    lost: Sequence[UUID]
    absent: Sequence[Absent]

    @property
    def missing_total(self) -> int:
        """The number of missing deliveries."""
        return len(self.lost) + len(self.absent)


def mark_now(queues: Collection[str]) -> dict[str, datetime]:
    """Record that a marker is being sent through queues, even if others have not come back yet.

    Args:
        queues: their names, empty for the default one.

    Returns:
        For each queue the time that the marker carries.
    """
    queue_states = QueueState.objects.using(using())
    for queue in queues:
        queue_states.get_or_create(queue=queue)
    queue_states.filter(queue__in=queues).update(marked_at=Now())
    return {
        queue_state.queue: queue_state.marked_at
        for queue_state in queue_states.filter(queue__in=queues)
        if queue_state.marked_at is not None
    }


def undecided(queues: Collection[str], *, decided: Collection[str], age: float) -> list[str]:
    """Return the queues for which there is no evidence yet whether their open deliveries are lost.

    Args:
        queues: the queues to check.
        decided: queues that are empty, or through which a marker came back: their due deliveries are decided.
        age: seconds; deliveries that were published since are not checked.
    """
    old = Delivery.objects.using(using()).filter(state=State.PUBLISHED, ended_at=None, due_at__lte=later(WAIT - age))
    young = old.filter(due_at__gt=Now())
    return [queue for queue in queues if (young if queue in decided else old).filter(queue=queue).exists()]


def proven(marked: Mapping[str, datetime]) -> set[str]:
    """Return the queues through which these markers, or later ones, have come back.

    Args:
        marked: the times of the markers, as `mark_now` returns them.
    """
    queue_states = QueueState.objects.using(using()).filter(queue__in=marked).exclude(proven_at=None)
    return {
        queue_state.queue
        for queue_state in queue_states
        if queue_state.proven_at is not None and queue_state.proven_at >= marked[queue_state.queue]
    }


def waiting_queues() -> list[str]:
    """Return the queues of open published deliveries."""
    return list(open_queues())


def audit(since: datetime, evidence: Evidence) -> Audit:
    """Count all deliveries by their state, and find the missing ones.

    Args:
        since: older messages are not counted.
        evidence: the evidence of the queues.
    """
    accounts = _counted(since)  # first: what is lost by now was published by then
    lost = _without_followers(list(_lost(since, evidence)))
    for row in lost:
        account = accounts.setdefault((row.signal, row.receiver), Account())
        account.counts["waiting"] = max(0, account.counts["waiting"] - 1)
        account.missing.append(row.id)
    absent = [item for messages in _recorded(since) for item in _absent_of(messages)]
    for item in absent:
        account = accounts.setdefault((item.message.signal, item.receiver), Account())
        account.missing.append(delivery_id(item.message.id, item.receiver))
    return Audit(dict(sorted(accounts.items())), [row.id for row in lost], absent)


def repair(found: Audit) -> int:
    """Make missing deliveries due: the sweeper publishes each alone.

    Args:
        found: the audit.

    Returns:
        The number of deliveries, with those that were found, run or ended in the meantime and need no repair.
    """
    alias = using()
    for start in range(0, len(found.lost), CHUNK):
        with transaction.atomic(using=alias):
            lost = Delivery.objects.using(alias).filter(id__in=found.lost[start : start + CHUNK])
            free = unlocked(lost.filter(state=State.PUBLISHED, ended_at=None))
            tell_of_rows("requeued", free)
            free.update(state=State.PENDING, publications=F("publications") + 1, due_at=Now())
    for start in range(0, len(found.absent), CHUNK):
        with transaction.atomic(using=alias):
            chunk = found.absent[start : start + CHUNK]
            ids = {item.message.id for item in chunk}
            # Locked: else a purge could take one away while its delivery is being added.
            there = (
                StoredMessage.objects.using(alias).filter(id__in=ids).select_for_update().values_list("id", flat=True)
            )
            unpurged = set(there)
            chunk = [item for item in chunk if item.message.id in unpurged]
            positions = assign_positions([item.message for item in chunk], using=alias)
            insert([], [_absent_row(message, receiver, positions) for message, receiver in chunk])
    return found.missing_total


def _absent_row(message: Message, receiver: str, positions: Mapping[UUID, int]) -> Delivery:
    """Make the row that a delivery should have; in an order, its place is at the end of what is there by now."""
    order_columns: DeliveryColumns = {}
    if message.id in positions:
        order_columns = {"ordering_key": order_of(message, receiver), "position": positions[message.id]}
    return new_delivery(message.id, receiver, _queue_of(message, receiver), **order_columns)


def _queue_of(message: Message, receiver: str) -> str | None:
    """Return the queue that a receiver asks for, as far as this process knows it; any queue's worker runs it."""
    signal = registry.signal(message.signal)
    known = None if signal is None else signal.find(receiver, message.sender)
    return None if known is None else known.queue


def _counted(since: datetime) -> dict[tuple[str, str], Account]:
    rows = Delivery.objects.using(using()).filter(message__created_at__gte=since).order_by()
    accounts: dict[tuple[str, str], Account] = {}
    groups = rows.values_list("message__signal", "receiver", "state").annotate(
        count=Count("pk"), retrying=Count("pk", filter=Q(state=State.PENDING, attempts__gt=0))
    )
    for signal, receiver, state, count, retrying in groups:
        counts = accounts.setdefault((signal, receiver), Account()).counts
        counts[State(state).word] += count - retrying
        counts[RETRYING] += retrying
    return accounts


def _lost(since: datetime, evidence: Evidence) -> Iterator[Lost]:
    """Yield the due published deliveries that the evidence proves to be in no queue, and that are not locked."""
    alias = using()
    for rows in _behind(since, evidence):
        columns = rows.order_by("due_at").values_list("id", "message__signal", "receiver", "ordering_key")
        found = [Lost(*row) for row in columns]
        for start in range(0, len(found), CHUNK):
            chunk = found[start : start + CHUNK]
            # For a moment: a worker that receives one of these meanwhile skips it, and it is published again.
            with transaction.atomic(using=alias):
                asked = rows.filter(id__in=[row.id for row in chunk])
                free = set(
                    unlocked(Delivery.objects.using(alias).filter(id__in=asked.values("id"))).values_list(
                        "id", flat=True
                    )
                )
            yield from (row for row in chunk if row.id in free)


def _without_followers(lost: Sequence[Lost]) -> Sequence[Lost]:
    """Leave out deliveries that wait for the head of their ordering key: their message was dropped meanwhile."""
    ids = {row.id for row in lost}
    ordered = [row.id for row in lost if row.ordering_key]
    waiting: set[UUID] = set()
    for start in range(0, len(ordered), CHUNK):
        found = before(ordered[start : start + CHUNK])
        waiting |= {id_ for id_, (head, _) in found.items() if head not in ids}  # else all of its key was lost
    return [row for row in lost if row.id not in waiting]


def _behind(since: datetime, evidence: Evidence) -> Iterator[QuerySet[Delivery]]:
    published = Delivery.objects.using(using()).filter(
        state=State.PUBLISHED, ended_at=None, due_at__lte=Now(), message__created_at__gte=since
    )
    before = later(WAIT - (time.monotonic() - evidence.asked_at))
    for queue in sorted(evidence.empty):
        yield published.filter(queue=queue, due_at__lte=before)
    for queue_state in QueueState.objects.using(using()).exclude(proven_at=None).exclude(queue__in=evidence.empty):
        marked: datetime = queue_state.proven_at  # type: ignore[assignment]  # excluded above
        yield published.filter(queue=queue_state.queue, due_at__lte=marked + timedelta(seconds=WAIT))


def _recorded(since: datetime) -> Iterator[list[Message]]:
    """Yield the messages that have a row for each recipient, in small chunks."""
    rows = StoredMessage.objects.using(using()).filter(created_at__gte=since, sealed=False).exclude(signal="")
    rows = rows.order_by("id")
    chunk = list(rows.annotate(head=Substr("text", 1, HEAD_CHARS)).values_list("id", "head")[:CHUNK])
    while chunk:
        messages = [message for id_, head in chunk if (message := _read(id_, head)) is not None]
        yield [message for message in messages if message.recorded]
        later_rows = rows.filter(id__gt=chunk[-1][0])
        chunk = list(later_rows.annotate(head=Substr("text", 1, HEAD_CHARS)).values_list("id", "head")[:CHUNK])


def _read(id_: UUID, head: str) -> Message | None:
    try:
        if head.count("\n") < 2:  # noqa: PLR2004 - version, header, payload: a header that is longer
            head = StoredMessage.objects.using(using()).values_list("text", flat=True).get(id=id_)
        return from_body(head)
    except (TextError, StoredMessage.DoesNotExist):  # of another version, or purged by now
        return None


def _absent_of(messages: Sequence[Message]) -> list[Absent]:
    rows = Delivery.objects.using(using()).filter(message__in=[message.id for message in messages])
    there = set(rows.values_list("message", "receiver"))
    absent = [
        Absent(message, receiver)
        for message in messages
        for receiver in receivers_of(message)
        if (message.id, receiver) not in there
    ]
    # A purge between the two looks has taken the message as well.
    ids = {item.message.id for item in absent}
    still = set(StoredMessage.objects.using(using()).filter(id__in=ids).values_list("id", flat=True)) if ids else set()
    return [item for item in absent if item.message.id in still]

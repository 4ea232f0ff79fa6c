"""Find the deliveries to publish now: those that are due, and those that were published and lost (decision 0029).

The sweeper calls it each second. A row that waits in a long queue is late, and publishing it again would make the
queue longer; a row that is not in the queue any more is lost. Markers, signed messages of our own through each queue,
tell the two apart: when a marker comes back, messages published before it have left the queue. A worker may still
have such a message in flight, in a batch or prefetched. So the decision waits for the next marker: a message is lost
if it was published before the marker that came back first, and is still open and unclaimed when the next one has come
back.

`retry_admission` decides how many of the due retries are taken.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import DatabaseError, connections, transaction
from django.db.models import Case, F, Q, When

from signalbus.ledger.attempts.ordering import postpone_followers
from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import unlocked, using
from signalbus.ledger.base.dialect import DELIVERIES, MESSAGES, PAUSES, as_uuid, dialect_of
from signalbus.ledger.base.missing_tables import is_missing
from signalbus.ledger.base.recording import WAIT
from signalbus.ledger.sweeps.retry_admission import Admission, DueRows
from signalbus.models import DUE_STATES, TAKEN_STATES, Delivery, QueueState, State, StoredMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from signalbus.ledger.base.dialect import Dialect
    from signalbus.ledger.sweeps.retry_admission import Share

MARK_AFTER = 5.0  # seconds after which a marker is sent behind deliveries that were published and are open
GRACE = 10.0  # seconds in which workers begin what they have taken off the queue: as long as a batch may take
MARK_AGAIN = 15.0  # seconds after which a marker that did not come back may be lost itself
LONGEST_WAIT = 600.0  # seconds, at most, until a delivery that was published again is checked

# As the index's own condition says it: SQLite uses a partial index only for the same words, and never for parameters.
_AWAITED = f"({' OR '.join(f'state = {state.value!r}' for state in DUE_STATES)})"


class Publishable(NamedTuple):
    """The columns of a delivery that is published now.

    Args:
        id: the delivery's id.
        message_id: its message's id, as the driver has it.
        receiver: its receiver's id; empty for a whole message.
        queue: its queue; empty for the default queue.
        attempts: the number of attempts.
        runtime_ms: the run time of the last one, if it is known.
        created_at: when it was recorded, as the driver has it.
        text: its message's text.
        sealed: that text has not been verified.
        signal: its message's signal; empty for a text that was never read.
        publications: how often it was lost and published again; above 0 it is sent alone: it may have ended its worker.
        lost: it has just been found to be lost.
        overdue: it was claimed by a worker whose lease is over.
    """

    id: UUID
    message_id: Any
    receiver: str
    queue: str
    attempts: int
    runtime_ms: int | None
    created_at: Any
    text: str
    sealed: bool
    signal: str
    publications: int
    lost: bool
    overdue: bool

    def as_row(self) -> Delivery:
        """Return the same as a row with its message, without a look at the database; it must not be saved."""
        message = StoredMessage(id=as_uuid(self.message_id), signal=self.signal, text=self.text, sealed=self.sealed)
        return Delivery(id=self.id, message=message, receiver=self.receiver, queue=self.queue, attempts=self.attempts)

    def load(self) -> Delivery:
        """Return the whole row with its message, and the database's time as ``clock``."""
        rows = Delivery.objects.using(using()).select_related("message").annotate(clock=Now())
        return rows.get(id=self.id)


class Look(NamedTuple):
    """The answer of the ledger to a sweep, most of the time.

    Args:
        is_idle: no delivery is due, and none that was published is open.
        is_anything_paused: there are pauses, in force or over.
    """

    is_idle: bool
    is_anything_paused: bool


def look() -> Look:
    """Return whether there is anything to do for a sweeper, and whether anything is paused.

    One statement instead of the three ORM queries of `anything_due` and `mark`, and that of the pauses, each second in
    each worker.
    """
    alias = using()
    with connections[alias].cursor() as cursor:
        try:
            cursor.execute(_look(dialect_of(alias), f"EXISTS (SELECT 1 FROM {PAUSES})"), ())
        except DatabaseError as error:
            if not is_missing(error):
                raise
            cursor.execute(_look(dialect_of(alias), "1 = 0"), ())  # the table of pauses is younger
        is_busy, is_anything_paused = cursor.fetchone()
    return Look(not is_busy, bool(is_anything_paused))


@cache
def _look(dialect: Dialect, is_anything_paused: str) -> str:
    found = (
        f"EXISTS (SELECT 1 FROM {DELIVERIES} WHERE {condition})"
        for condition in (
            _due_now(dialect).condition,
            f"ended_at IS NULL AND state = '{State.PUBLISHED.value}'",
        )
    )
    return f"SELECT {' OR '.join(found)}, {is_anything_paused}"


def anything_due() -> bool:
    """Return whether `take_due` would find a delivery, by a read without a lock."""
    with connections[using()].cursor() as cursor:
        for rows in _to_publish():
            cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {DELIVERIES} WHERE {rows.condition})", rows.values)
            if cursor.fetchone()[0]:
                return True
    return False


def take_due(limit: int) -> list[Publishable]:
    """Take the deliveries to publish now; no other sweeper gets them meanwhile.

    Args:
        limit: the maximal number.

    Returns:
        The columns to publish of each.
    """
    return take_admitted(limit, None)[0]


def take_admitted(limit: int, share: Share | None, *, lost: bool = True) -> tuple[list[Publishable], bool]:
    """Take the deliveries to publish now, and of each receiver's retries no more than its share.

    Args:
        limit: the maximal number.
        share: the limit on one receiver's retries; None for no limit.
        lost: also take published deliveries that are lost.

    Returns:
        The deliveries, as `take_due` does, and whether retries wait for those in flight.
    """
    taken: list[Publishable] = []
    with transaction.atomic(using=using()):
        admission = Admission(share)
        for rows in _to_publish(lost=lost):
            if len(taken) < limit:
                taken += _take(rows, limit - len(taken), admission)
    return taken, bool(admission.full)


def _to_publish(*, lost: bool = True) -> Iterator[DueRows]:
    alias = using()
    yield _due_now(dialect_of(alias))
    if not lost:
        return
    # One range of the index for each queue: a backlog is never scanned.
    for queue_state in QueueState.objects.using(alias).exclude(proven_at=None):
        proven: datetime = queue_state.proven_at  # type: ignore[assignment]  # excluded above
        until = connections[alias].ops.adapt_datetimefield_value(proven + timedelta(seconds=WAIT))
        yield DueRows(_lost(dialect_of(alias)), (queue_state.queue, until))


@cache
def _due_now(dialect: Dialect) -> DueRows:
    return DueRows(f"{_AWAITED} AND due_at <= {dialect.statement_now}")


@cache
def _lost(dialect: Dialect) -> str:
    state = State.PUBLISHED.value
    due = f"due_at <= {dialect.statement_now} AND due_at <= %s"
    return f"ended_at IS NULL AND state = '{state}' AND queue = %s AND {due}"


def _take(rows: DueRows, limit: int, admission: Admission) -> list[Publishable]:
    alias = using()
    groups: dict[tuple[int, str | None, bool, bool], list[Any]] = {}
    due = admission.choose(rows, limit, alias)
    ordered = [as_uuid(row.id) for row in due if row.ordering_key]
    waiting = postpone_followers(ordered) if ordered else ()
    for row in due:
        if waiting and as_uuid(row.id) in waiting:
            continue
        lost = row.state in TAKEN_STATES
        admitted_by = admission.worker if row.attempts else None
        overdue = row.state == State.RUNNING
        group = (row.publications + lost, admitted_by, lost or row.is_released, overdue)
        groups.setdefault(group, []).append(row.id)
    taken: list[Publishable] = []
    for group, ids in groups.items():
        taken += _publish(dialect_of(alias), ids, *group)
    return sorted(taken, key=lambda row: row.created_at)


def _publish(  # noqa: PLR0913, PLR0917 - all that is to be written about them
    dialect: Dialect, keys: Sequence[Any], publications: int, admitted_by: str | None, lost: bool, overdue: bool
) -> Iterator[Publishable]:
    """Set locked rows to published, and return them. In raw SQL, because each retry costs it."""
    placeholders = ", ".join(["%s"] * len(keys))
    with connections[using()].cursor() as cursor:
        cursor.execute(
            f"UPDATE {DELIVERIES} SET state = '{State.PUBLISHED.value}', publications = %s, admitted_by = %s, "
            f"due_at = {dialect.later} WHERE id IN ({placeholders})",
            (publications, admitted_by, min(LONGEST_WAIT, WAIT * 2.0 ** min(publications, 16)), *keys),
        )
        cursor.execute(
            "SELECT d.id, m.id, d.receiver, d.queue, d.attempts, d.runtime_ms, d.created_at, m.text, m.sealed, "
            f"m.{dialect.quote}signal{dialect.quote} FROM {DELIVERIES} d JOIN {MESSAGES} m ON m.id = d.message_id "
            f"WHERE d.id IN ({placeholders})",
            keys,
        )
        rows = cursor.fetchall()
    noted = (publications, lost, overdue)
    return (Publishable._make((as_uuid(id_), *rest, *noted)) for id_, *rest in rows)


def recall() -> None:
    """Shorten the wait of rows that a sweeper of 0.1 published: a quarter of an hour, in which no marker counts.

    Workers of 0.1 find no row for a newer sender's message, and drop it. A row that waits longer than any of ours was
    published by one of their sweepers; it counts as published now.
    """
    alias = using()
    for queue in open_queues():
        with transaction.atomic(using=alias):
            far = Delivery.objects.using(alias).filter(
                state=State.PUBLISHED, ended_at=None, queue=queue, due_at__gt=later(LONGEST_WAIT)
            )
            unlocked(far).update(due_at=later(WAIT))


def mark() -> list[tuple[str, datetime]]:
    """Record for each queue that needs a marker that one is being sent through it.

    Returns:
        Queues, empty for the default one, with the time to write on the marker.
    """
    return [(queue, marked) for queue in _queues() if (marked := _mark(queue)) is not None]


def _queues() -> Iterator[str]:
    """Yield the queues of published deliveries that have been open for a while."""
    waiting = Delivery.objects.using(using()).filter(
        state=State.PUBLISHED, ended_at=None, due_at__lte=later(WAIT - MARK_AFTER)
    )
    return (queue for queue in open_queues() if waiting.filter(queue=queue).exists())


def open_queues() -> Iterator[str]:
    """Yield the queues of open published deliveries, by one query for each."""
    names = Delivery.objects.using(using()).filter(state=State.PUBLISHED, ended_at=None).order_by("queue")
    queue = names.values_list("queue", flat=True).first()
    while queue is not None:
        yield queue
        queue = names.filter(queue__gt=queue).values_list("queue", flat=True).first()


def _mark(queue: str) -> datetime | None:
    alias = using()
    queue_states = QueueState.objects.using(alias)
    queue_states.get_or_create(queue=queue)
    back = Q(returned_at__gte=F("marked_at")) & Q(seen_at__lte=later(-GRACE))
    with transaction.atomic(using=alias):
        due = queue_states.filter(Q(marked_at=None) | back | Q(marked_at__lte=later(-MARK_AGAIN)), queue=queue)
        if not due.update(marked_at=Now()):  # another sweeper has sent one, or it is still in the queue
            return None
        return queue_states.values_list("marked_at", flat=True).get(queue=queue)


def marker_returned(queue: str, marked_at: datetime) -> None:
    """Record that a marker came back through its queue; an old copy of one changes nothing.

    Args:
        queue: the queue.
        marked_at: the time that the marker carries.
    """
    queue_state = QueueState.objects.using(using()).filter(
        Q(returned_at=None) | Q(returned_at__lt=marked_at), queue=queue
    )
    # Markers that waited in a long queue together come back together, and prove nothing of each other. All values are
    # those from before, but on MySQL, where each assignment is seen by the next: the order of them matters.
    proven = Case(When(seen_at__lte=later(-GRACE), then=F("returned_at")), default=F("proven_at"))
    queue_state.update(proven_at=proven, returned_at=marked_at, seen_at=Now())


def mark_requeued(deliveries: Iterable[UUID]) -> None:
    """Record that waiting deliveries were requeued at the end of their queue.

    Args:
        deliveries: their ids.
    """
    with transaction.atomic(using=using()):
        waiting = Delivery.objects.using(using()).filter(id__in=list(deliveries), state=State.PUBLISHED)
        unlocked(waiting).update(due_at=later(WAIT))

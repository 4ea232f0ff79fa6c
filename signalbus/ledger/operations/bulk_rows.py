"""Record operations in bulk, and read, pause, resume and cancel them (decision 0050). `bulk_steps` does their work.

The row of an operation is its line in the audit log too: the class `LogEntry` shows it as one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from django.db import DatabaseError, connections, transaction
from django.db.models import Case, When

from signalbus.ledger.base.clock import Now, clock_of, in_utc
from signalbus.ledger.base.deliveries import storable, using
from signalbus.ledger.base.missing_tables import is_missing
from signalbus.models import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from django.db.models import QuerySet

BulkKind = Literal["retry", "discard"]
CHANGED: Final[dict[str, str]] = {"retry": "retried", "discard": "discarded"}  # the name of the count of each kind
STARTED: Final = ("waiting", "running")
UNFINISHED: Final = (*STARTED, "paused")
_ANY_OPEN: Final = f"SELECT 1 FROM {Operation._meta.db_table} WHERE ended_at IS NULL LIMIT 1"  # noqa: S608, SLF001 - a constant


@dataclass(frozen=True, slots=True)
class BulkOperation:
    """An operation in bulk, with its progress.

    Args:
        id: its number.
        kind: "retry" or "discard".
        words: the words of its filter.
        reason: why; may be empty.
        by: the name of the person.
        through: "web", "admin", "command" or "code".
        state: waiting (no sweeper has begun it), running, paused, done, cancelled or stopped.
        stage: "first" (one delivery), "ten", "rest", or "ending" (all that it found is changed).
        rate: deliveries a second; None for no limit.
        limit: how many deliveries at most; None for all.
        found: the number of deliveries that it selects; None until a sweeper has counted them.
        changed: how many of these were retried or discarded so far.
        left_alone: how many were locked, because they ran at that moment.
        waiting: how many of the retried ones have neither ended nor failed again, as last counted.
        failed_again: how many of the retried ones have failed again and not succeeded since, as last counted.
        stopped_because: why it stopped: an error; else empty.
        stopped_group: the group of that failure; empty if it has none.
        stopped_by: the deliveries that failed again when it stopped; at most ten.
        created_at: when it was asked for, in UTC; nothing that was sent or failed later belongs to it.
        started_at: when a sweeper began it, in UTC.
        ended_at: when it ended, in UTC.
        read_at: the ledger's time when this was read, in UTC.
        trial: the deliveries that must end well before it goes on.
    """

    id: int
    kind: str
    words: tuple[str, ...]
    reason: str
    by: str
    through: str
    state: str
    stage: str
    rate: float | None
    limit: int | None
    found: int | None
    changed: int
    left_alone: int
    waiting: int
    failed_again: int
    stopped_because: str
    stopped_group: str
    stopped_by: Sequence[str]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    read_at: datetime
    trial: Sequence[str] = field(default=())

    @property
    def done(self) -> int:
        """The number of changed deliveries that have ended, a retried one well."""
        return max(0, self.changed - self.waiting - self.failed_again)

    @property
    def left(self) -> int:
        """The number of deliveries that it has not come to yet."""
        return max(0, (self.found or 0) - self.changed - self.left_alone)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, for whatever reason."""
        return self.ended_at is not None

    @property
    def seconds_left(self) -> float | None:
        """The estimated seconds until it ends; None if that cannot be told, as while a trial is not over."""
        if self.state != "running" or self.started_at is None or not self.changed or self.trial:
            return None
        if self.rate is not None and self.left:
            return max(1.0, self.left / self.rate)
        finished = self.done + self.failed_again + self.left_alone
        elapsed = (self.read_at - self.started_at).total_seconds()
        return max(1.0, (self.left + self.waiting) * elapsed / finished) if finished else None


def add_bulk(  # noqa: PLR0913 - the columns
    kind: BulkKind,
    words: Sequence[str],
    *,
    by: str,
    by_id: str,
    through: str,
    reason: str = "",
    rate: float | None = None,
    limit: int | None = None,
    below: UUID | None = None,
) -> int:
    """Ask for an operation: a sweeper begins it.

    Args:
        kind: what is done.
        words: the words of a filter without ages.
        by: the name of the person.
        by_id: the id of that user, or an empty text.
        through: how it was asked for.
        reason: why.
        rate: deliveries a second.
        limit: how many deliveries at most, the oldest first.
        below: only deliveries with an id below this one.

    Returns:
        Its number.
    """
    details = {
        "words": list(words), "limit": limit, "below": below and str(below),
        "stage": "first" if kind == "retry" else "rest",
    }  # fmt: skip
    row = Operation.objects.using(using()).create(
        kind=kind, by=storable(by), by_id=by_id, through=through, reason=storable(reason), rate=rate, details=details,
        filter={"filter": " ".join(words) or "all"}, state="waiting", created_at=Now(),
    )  # fmt: skip
    return int(row.pk)


def _bulk_rows() -> QuerySet[Operation]:
    return Operation.objects.using(using()).filter(kind__in=CHANGED, details__has_key="stage")


def unfinished() -> list[int]:
    """Return the operations that have a step to be done, the first asked for first; called by the sweepers.

    Returns:
        Their numbers; none while the table does not exist, because the migration has not been applied yet.
    """
    # Without a condition on the JSON column, which no index answers; `bulk_steps` looks at it.
    rows = Operation.objects.using(using()).filter(ended_at=None, state__in=STARTED, kind__in=CHANGED)
    try:
        if not _is_any_open():
            return []
        return [pk for pk, details in rows.order_by("pk").values_list("pk", "details") if "stage" in details]
    except DatabaseError as error:
        if is_missing(error):
            return []
        raise


def _is_any_open() -> bool:
    """Return whether an operation has not ended; raw SQL, because each idle worker asks it again and again."""
    with connections[using()].cursor() as cursor:
        cursor.execute(_ANY_OPEN)
        return cursor.fetchone() is not None


def bulk_operations(limit: int, *, ids: Sequence[int] | None = None) -> list[BulkOperation]:
    """Return operations: those that have not ended, and then the youngest of those that have.

    Args:
        limit: the maximal number.
        ids: only these.
    """
    alias = using()
    rows = _bulk_rows() if ids is None else _bulk_rows().filter(pk__in=ids)
    has_ended = Case(When(ended_at=None, then=0), default=1)
    found = list(rows.order_by(has_ended, "-pk")[:limit])
    read_at = in_utc(clock_of(alias), alias) if found else None
    return [bulk_from(row, read_at) for row in found if read_at is not None]


def bulk_from(row: Operation, read_at: datetime) -> BulkOperation:
    """Return the operation of a row.

    Args:
        row: a row of an operation in bulk.
        read_at: the ledger's time, in UTC.
    """
    alias = using()
    counts: dict[str, int] = row.counts
    details: dict[str, Any] = row.details
    stopped = details.get("stopped") or {}

    def utc(moment: datetime | None) -> datetime | None:
        return None if moment is None else in_utc(moment, alias)

    return BulkOperation(
        id=row.pk, kind=row.kind, words=tuple(details["words"]), reason=row.reason, by=row.by, through=row.through,
        state=row.state, stage=details["stage"], rate=row.rate, limit=details.get("limit"),
        found=counts.get("found"), changed=counts.get(CHANGED[row.kind], 0), left_alone=counts.get("left_alone", 0),
        waiting=counts.get("waiting", 0), failed_again=counts.get("failed_again", 0),
        stopped_because=stopped.get("error", ""), stopped_group=stopped.get("group") or "",
        stopped_by=stopped.get("ids", ()), created_at=in_utc(row.created_at, alias), started_at=utc(row.started_at),
        ended_at=utc(row.ended_at), read_at=read_at, trial=tuple(details.get("trial") or ()),
    )  # fmt: skip


def pause_bulk(operation: int) -> bool:
    """Do no more steps of an operation until it is resumed; wait for the step that a sweeper is doing.

    Args:
        operation: its number.

    Returns:
        False if it is neither waiting nor running.
    """
    return bool(_bulk_rows().filter(pk=operation, state__in=STARTED).update(state="paused"))


def resume_bulk(operation: int) -> bool:
    """Go on with a paused operation.

    Args:
        operation: its number.

    Returns:
        False if it is not paused.
    """
    with transaction.atomic(using=using()):
        row = _bulk_rows().select_for_update().filter(pk=operation, state="paused").first()
        if row is None:
            return False
        row.state = "waiting" if row.started_at is None else "running"
        row.details["credit_at"] = None  # the rate was not used meanwhile, and is not made up for
        row.save(using=using(), update_fields=["state", "details"])
    return True


def cancel_bulk(operation: int) -> bool:
    """End an operation before it has come to all deliveries; those that it has made due run.

    Args:
        operation: its number.

    Returns:
        False if it has ended.
    """
    rows = _bulk_rows().filter(pk=operation, state__in=UNFINISHED)
    return bool(rows.update(state="cancelled", ended_at=Now()))

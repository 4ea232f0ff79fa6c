"""Write and read the audit log: what people changed, when, through what and why.

A line is written in the transaction of the change. If the change takes several transactions, the line is written before
the first, and completed after the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from django.db.models import Q

from signalbus.ledger.base.clock import Now, in_utc
from signalbus.ledger.base.deliveries import storable, using
from signalbus.models import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of the audit log.

    Args:
        id: its number.
        at: when, in UTC.
        by: the name of the person.
        by_id: the id of that user; empty if it has none.
        through: "web", "admin", "command" or "code".
        kind: what was done: "pause", "retry" and so on.
        state: "done"; else it is being done, or was broken off.
        filter: what it was done to.
        reason: why; may be empty.
        rate: deliveries a second; None for no limit.
        counts: numbers of deliveries.
        details: what else belongs to it.
    """

    id: int
    at: datetime
    by: str
    by_id: str
    through: str
    kind: str
    state: str
    filter: Mapping[str, Any]
    reason: str
    rate: float | None
    counts: Mapping[str, int]
    details: Mapping[str, Any]


def add_to_log(  # noqa: PLR0913 - the columns
    kind: str,
    *,
    by: str,
    by_id: str,
    through: str,
    target: Mapping[str, Any],
    reason: str = "",
    rate: float | None = None,
    counts: Mapping[str, int] | None = None,
    details: Mapping[str, Any] | None = None,
    is_done: bool = True,
) -> int:
    """Add a line about a change.

    Args:
        kind: what was done.
        by: the name of the person.
        by_id: the id of that user, or an empty text.
        through: how it was asked for.
        target: what it was done to.
        reason: why.
        rate: deliveries a second, if it was limited.
        counts: numbers of deliveries.
        details: what else belongs to it.
        is_done: it was made, or is made in this transaction; else `complete_log` says so later.

    Returns:
        The number of the line.
    """
    row = Operation.objects.using(using()).create(
        kind=kind, by=storable(by), by_id=by_id, through=through, filter=dict(target), reason=storable(reason),
        rate=rate, counts=dict(counts or {}), details=dict(details or {}), state="done" if is_done else "running",
        created_at=Now(), started_at=Now(), ended_at=Now() if is_done else None,
    )  # fmt: skip
    return int(row.pk)


def complete_log(entry: int, counts: Mapping[str, int]) -> None:
    """Note that a change has been made.

    Args:
        entry: the number of its line.
        counts: numbers of deliveries.
    """
    Operation.objects.using(using()).filter(pk=entry).update(state="done", counts=dict(counts), ended_at=Now())


def log_entries(
    limit: int, *, kind: str | None = None, by: str | None = None, before: int | None = None
) -> list[LogEntry]:
    """Return the youngest lines of the audit log, the youngest first.

    Args:
        limit: the maximal number.
        kind: only what was done so.
        by: only what this person did.
        before: only lines with a lower number, older ones.
    """
    alias = using()
    wanted = Q()
    if kind is not None:
        wanted &= Q(kind=kind)
    if by is not None:
        wanted &= Q(by=by)
    if before is not None:
        wanted &= Q(pk__lt=before)
    return [
        LogEntry(
            row.pk, in_utc(row.created_at, alias), row.by, row.by_id, row.through, row.kind, row.state, row.filter,
            row.reason, row.rate, cast("dict[str, int]", row.counts), row.details,
        )
        for row in Operation.objects.using(alias).filter(wanted).order_by("-pk")[:limit]
    ]  # fmt: skip

"""List what failed, retry or discard it, and delete old rows: with permissions, and written to the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db.models import Count, Min

from signalbus import conf
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery
from signalbus.services.actors import OPERATE, VIEW
from signalbus.services.audit_log import logged_change
from signalbus.services.changes.bulk_operations import reject_wrong_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from django.db.models import QuerySet

    from signalbus.services.actors import Actor
    from signalbus.services.filters import Filter

KEPT_IDS: Final = 1000  # of the deliveries of one change that the audit log names


def failed(actor: Actor, *, state: str | None = None) -> QuerySet[Delivery]:
    """Return the unresolved deliveries: dead, parked, or failed and waiting for the next attempt.

    Args:
        actor: who asks.
        state: only, and all, deliveries in this state.

    Returns:
        The deliveries with their messages, the latest failure first.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    return ledger.failed(state=state)


def matching(wanted: Filter, *, actor: Actor, limit: int | None = None) -> list[UUID]:
    """Return the deliveries that a filter selects, the oldest first, for `retry` and `discard`.

    Args:
        wanted: the filter. Without a state it selects among what `failed` lists.
        actor: who asks.
        limit: how many at most.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    return list(_matching(wanted).order_by("id").values_list("id", flat=True)[:limit])


def _matching(wanted: Filter) -> QuerySet[Delivery]:
    rows = Delivery.objects.using(ledger.using()) if wanted.states else ledger.failed()
    return rows.filter(wanted.condition)


@dataclass(frozen=True, slots=True)
class Selection:
    """The deliveries that a filter selects now, in numbers.

    Args:
        count: their number.
        oldest: when the oldest of them was sent, as Django read it; None if there is none.
        receivers: the number for each receiver, the largest first.
    """

    count: int
    oldest: datetime | None
    receivers: list[tuple[str, int]]


def summarize(wanted: Filter, *, actor: Actor, limit: int | None = None) -> Selection:
    """Count the deliveries that a filter selects.

    Args:
        wanted: the filter, as for `matching`.
        actor: who asks.
        limit: only so many, the oldest first.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    rows = _matching(wanted)
    counted: Iterable[Any]
    if limit is None:
        counted = rows.order_by().values_list("receiver").annotate(count=Count("id"), oldest=Min("created_at"))
    else:  # MySQL limits no subquery
        found: dict[str, tuple[int, datetime]] = {}
        for receiver, sent in rows.order_by("id").values_list("receiver", "created_at")[:limit]:
            count, oldest = found.get(receiver, (0, sent))
            found[receiver] = (count + 1, min(oldest, sent))
        counted = [(receiver, *values) for receiver, values in found.items()]
    by_count = sorted(counted, key=lambda row: (-row[1], row[0]))
    return Selection(
        sum(count for _, count, _ in by_count),
        min((oldest for *_, oldest in by_count), default=None),
        [(receiver, count) for receiver, count, _ in by_count],
    )


def retry(
    ids: Sequence[UUID] | None, *, actor: Actor, reason: str = "", rate: float | None = None, wanted: str = ""
) -> int:
    """Make deliveries due, with a new allowance of attempts.

    Args:
        ids: the deliveries; None for all that `failed` lists.
        actor: who asks for it.
        reason: why.
        rate: how many become due in a second; None: all of them at once.
        wanted: the text of the filter that selected them, for the audit log.

    Returns:
        Their number. Those that are done, run now or were never verified are left alone.

    Raises:
        PermissionDenied: the actor must not.
        ConfigurationError: the rate is not above 0.
    """
    actor.require(OPERATE)
    reject_wrong_rate(rate)
    target = _target(ids, wanted) | ({} if rate is None else {"rate": rate})
    with logged_change(actor, "retry", target, reason) as counts:
        counts["retried"] = ledger.retry(ids, rate=rate)
    return counts["retried"]


def discard(ids: Sequence[UUID], *, actor: Actor, reason: str = "", wanted: str = "") -> int:
    """Discard deliveries: none runs again unless somebody retries it.

    Args:
        ids: the deliveries.
        actor: who asks for it.
        reason: why.
        wanted: the text of the filter that selected them, for the audit log.

    Returns:
        Their number. Those that are done or run now are left alone.

    Raises:
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    with logged_change(actor, "discard", _target(ids, wanted), reason) as counts:
        counts["discarded"] = ledger.discard(ids)
    return counts["discarded"]


def purge(*, actor: Actor, seconds: float | None = None, reason: str = "") -> int:
    """Delete what ended well, was skipped or discarded, and is old.

    Args:
        actor: who asks for it.
        seconds: how old; None for the settings `KEEP_SECONDS` and `KEEP`.
        reason: why.

    Returns:
        The number of deleted deliveries.

    Raises:
        ConfigurationError: the age is negative.
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    age, ages = (conf.get().KEEP_SECONDS, conf.get().ages()) if seconds is None else (seconds, None)
    if age < 0:
        raise ConfigurationError(f"The age is {age!r} seconds; it must be a number from 0 up.")
    with logged_change(actor, "purge", {"seconds": age}, reason) as counts:
        counts["purged"] = ledger.purge(age, ages=ages)
    return counts["purged"]


def _target(ids: Sequence[UUID] | None, wanted: str) -> dict[str, Any]:
    if ids is None:
        return {"all": "failed"}
    chosen = {"filter": wanted} if wanted else {}
    return {**chosen, "deliveries": len(ids), "ids": [str(id_) for id_ in ids[:KEPT_IDS]]}

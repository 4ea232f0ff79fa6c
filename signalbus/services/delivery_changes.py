"""List what failed, retry or discard it, and delete old rows: with permissions, and written to the audit log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from signalbus import conf
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery
from signalbus.services.actors import OPERATE, VIEW
from signalbus.services.audit_log import logged_change

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    rows = Delivery.objects.using(ledger.using()) if wanted.states else ledger.failed()
    return list(rows.filter(wanted.condition).order_by("id").values_list("id", flat=True)[:limit])


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
    if rate is not None and not 0 < rate < math.inf:
        raise ConfigurationError(f"The rate is {rate!r}; it must be a number of deliveries a second, above 0.")
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

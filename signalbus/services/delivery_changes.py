"""List what failed, retry or discard it, and delete old rows: with permissions, and written to the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from signalbus import conf
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.services.actors import OPERATE, VIEW
from signalbus.services.audit_log import logged_change

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from django.db.models import QuerySet

    from signalbus.models import Delivery
    from signalbus.services.actors import Actor

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


def retry(ids: Sequence[UUID] | None, *, actor: Actor, reason: str = "") -> int:
    """Make deliveries due at once, with a new allowance of attempts.

    Args:
        ids: the deliveries; None for all that `failed` lists.
        actor: who asks for it.
        reason: why.

    Returns:
        Their number. Those that are done, run now or were never verified are left alone.

    Raises:
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    with logged_change(actor, "retry", _target(ids), reason) as counts:
        counts["retried"] = ledger.retry(ids)
    return counts["retried"]


def discard(ids: Sequence[UUID], *, actor: Actor, reason: str = "") -> int:
    """Discard deliveries: none runs again unless somebody retries it.

    Args:
        ids: the deliveries.
        actor: who asks for it.
        reason: why.

    Returns:
        Their number. Those that are done or run now are left alone.

    Raises:
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    with logged_change(actor, "discard", _target(ids), reason) as counts:
        counts["discarded"] = ledger.discard(ids)
    return counts["discarded"]


def purge(*, actor: Actor, seconds: float | None = None, reason: str = "") -> int:
    """Delete what ended well, was skipped or discarded, and is old.

    Args:
        actor: who asks for it.
        seconds: how old; None for the setting `KEEP_SECONDS`.
        reason: why.

    Returns:
        The number of deleted deliveries.

    Raises:
        ConfigurationError: the age is negative.
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    age = conf.get().KEEP_SECONDS if seconds is None else seconds
    if age < 0:
        raise ConfigurationError(f"The age is {age!r} seconds; it must be a number from 0 up.")
    with logged_change(actor, "purge", {"seconds": age}, reason) as counts:
        counts["purged"] = ledger.purge(age)
    return counts["purged"]


def _target(ids: Sequence[UUID] | None) -> dict[str, Any]:
    if ids is None:
        return {"all": "failed"}
    return {"deliveries": len(ids), "ids": [str(id_) for id_ in ids[:KEPT_IDS]]}

"""List, retry and discard failed deliveries by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import Case, F, Q, When

from signalbus.ledger.attempts.turns import wake
from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import CHUNK, unlocked, update_free, using
from signalbus.ledger.base.event_subjects import tell_of_rows
from signalbus.models import OPEN_STATES, Delivery, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from django.db.models import QuerySet

# A text that was parked may be a good one whose key came too late; one that never was is garbage, or forged, or was
# never written because its payload could not travel.
REFUSED = Q(message__sealed=True, parked_at=None)
TROUBLED = Q(state__in=(State.DEAD, State.PARKED)) | (Q(state__in=OPEN_STATES) & ~Q(error=""))


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
    return rows.filter(TROUBLED).order_by("-failed_at", "-created_at")


def skipped() -> tuple[int, int]:
    """Count what was skipped and not purged since.

    Returns:
        How many deliveries because a row was not found, and how many messages because nobody received them.
    """
    rows = Delivery.objects.using(using()).filter(state=State.SKIPPED)
    nobody = rows.filter(receiver="").count()
    return rows.count() - nobody, nobody


def retry(ids: Sequence[UUID] | None) -> int:
    """Give dead, skipped and waiting deliveries a fresh allowance, due at once.

    Args:
        ids: which; None for all that failed.

    Returns:
        How many. What was refused cannot be retried: nobody vouches for it.
    """
    rows = _changeable() if ids is not None else _changeable().filter(TROUBLED)
    wanted = rows.exclude(REFUSED)
    # What was parked for its day gets another one.
    parked_at = Case(When(parked_at__isnull=False, then=Now()))
    fields: dict[str, Any] = {
        "state": State.PENDING, "allowance": F("attempts"), "due_at": Now(), "parked_at": parked_at, "ended_at": None
    }  # fmt: skip
    return sum(
        update_free(rows.filter(id__in=wanted.filter(id__in=some).values("id")), told="retried", **fields)
        for some in _chunks(list(wanted.values_list("id", flat=True)) if ids is None else ids)
    )


def discard(ids: Sequence[UUID]) -> int:
    """Give deliveries up for good; they stay visible until they are purged.

    Args:
        ids: which.

    Returns:
        How many; those that have ended well, or run now, are left alone.
    """
    return sum(_discard(some) for some in _chunks(ids))


def _discard(ids: Sequence[UUID]) -> int:
    alias = using()
    with transaction.atomic(using=alias):
        free = dict(unlocked(_changeable().filter(id__in=ids)).values_list("id", "ordering_key"))
        rows = Delivery.objects.using(alias).filter(id__in=free)
        tell_of_rows("discarded", rows)
        discarded = rows.update(state=State.DISCARDED, ended_at=Now())
        for key in {key for key in free.values() if key}:
            wake(key)
    return discarded


def _changeable() -> QuerySet[Delivery]:
    """Return what has neither ended well nor is claimed; what a receiver's transaction has locked is passed over."""
    return Delivery.objects.using(using()).exclude(state__in=(State.DONE, State.RUNNING))


def _chunks(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))

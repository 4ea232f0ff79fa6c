"""What people do with what failed: list it, try it again, give it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Case, F, Q, When
from django.db.models.functions import Now

from signalbus.ledger.deliveries import using
from signalbus.ledger.turns import wake
from signalbus.models import OPEN_STATES, Delivery, State

if TYPE_CHECKING:
    from collections.abc import Sequence
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
        How many deliveries because a row was gone, and how many messages because nobody received them.
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
    rows = Delivery.objects.using(using()).filter(TROUBLED if ids is None else Q(id__in=ids))
    rows = rows.exclude(state__in=(State.DONE, State.RUNNING)).exclude(REFUSED)
    # What was parked for its day gets another one.
    parked_at = Case(When(parked_at__isnull=False, then=Now()))
    return rows.update(state=State.PENDING, allowance=F("attempts"), due_at=Now(), parked_at=parked_at, ended_at=None)


def discard(ids: Sequence[UUID]) -> int:
    """Give deliveries up for good; they stay visible until they are purged.

    Args:
        ids: which.

    Returns:
        How many; those that have ended well, or run now, are left alone.
    """
    alias = using()
    rows = Delivery.objects.using(alias).filter(id__in=ids).exclude(state__in=(State.DONE, State.RUNNING))
    with transaction.atomic(using=alias):
        keys = set(rows.exclude(ordering_key="").values_list("ordering_key", flat=True))
        discarded = rows.update(state=State.DISCARDED, ended_at=Now())
        for key in keys:
            wake(key)
    return discarded

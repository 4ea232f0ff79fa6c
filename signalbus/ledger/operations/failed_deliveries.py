"""List failed deliveries, retry them, and discard them.

``manage.py signalbus failed``, ``retry`` and ``discard`` call it. Automatic retries are not decided here: see
`receiving/settling/outcome`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Case, F, Q, When

from signalbus.ledger.attempts.ordering import wake
from signalbus.ledger.base.clock import Now, later
from signalbus.ledger.base.deliveries import CHUNK, unlocked, update_free, using
from signalbus.ledger.base.event_subjects import tell_of_rows
from signalbus.models import OPEN_STATES, Delivery, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from django.db.models import QuerySet

    from signalbus.ledger.base.deliveries import DeliveryColumns

# A text that was parked may be a good one whose key came too late; one that was not is garbage, or forged, or its
# payload could not be encoded.
REFUSED = Q(message__sealed=True, parked_at=None)
UNRESOLVED = Q(state__in=(State.DEAD, State.PARKED)) | (Q(state__in=OPEN_STATES) & ~Q(error=""))


def failed(*, state: str | None = None) -> QuerySet[Delivery]:
    """Return the unresolved deliveries: dead, parked, or failed and waiting for the next attempt.

    Args:
        state: only the deliveries in this state.

    Returns:
        The deliveries with their messages, the latest failure first.
    """
    rows = Delivery.objects.using(using()).select_related("message")
    if state is not None:
        return rows.filter(state=state).order_by("-created_at")
    return rows.filter(UNRESOLVED).order_by("-failed_at", "-created_at")


def skipped() -> tuple[int, int]:
    """Count the skipped deliveries that are not purged yet.

    Returns:
        The number of deliveries for which a row was not found, and the number of messages without a receiver.
    """
    rows = Delivery.objects.using(using()).filter(state=State.SKIPPED)
    nobody = rows.filter(receiver="").count()
    return rows.count() - nobody, nobody


def retry(ids: Sequence[UUID] | None, *, rate: float | None = None) -> int:
    """Make deliveries due, with a new allowance of attempts: all unresolved ones, or those that are named.

    Args:
        ids: the deliveries, which may be skipped or discarded ones; None for all unresolved ones.
        rate: how many become due in a second, in the order of the ids; None: all of them at once.

    Returns:
        Their number. Refused texts cannot be retried: they were not verified.
    """
    rows = changeable() if ids is not None else changeable().filter(UNRESOLVED)
    wanted = rows.exclude(REFUSED)
    fields = _retried()
    size = CHUNK if rate is None else max(1, min(CHUNK, round(rate)))
    retried = 0
    for number, some in enumerate(_chunks(list(wanted.values_list("id", flat=True)) if ids is None else ids, size)):
        if rate is not None:
            fields["due_at"] = later(number * size / rate)
        retried += update_free(rows.filter(id__in=wanted.filter(id__in=some).values("id")), kind="retried", **fields)
    return retried


def retry_together(ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """Make a few deliveries due, with a new allowance of attempts, in the caller's transaction.

    Args:
        ids: the deliveries; none is a refused text.

    Returns:
        Those that were free, with the group of their last failure, if it has one.
    """
    free = unlocked(changeable().filter(id__in=ids))
    groups = dict(free.values_list("id", "error_group"))
    rows = Delivery.objects.using(using()).filter(id__in=groups)
    tell_of_rows("retried", rows)
    rows.update(**_retried())
    return groups


def _retried() -> DeliveryColumns:
    # A parked delivery gets another ``PARK_SECONDS``.
    parked_at = Case(When(parked_at__isnull=False, then=Now()))
    return {
        "state": State.PENDING, "allowance": F("attempts"), "due_at": Now(), "parked_at": parked_at, "ended_at": None
    }  # fmt: skip


def discard(ids: Sequence[UUID]) -> int:
    """Discard deliveries: none is run again unless it is retried by its id; they stay visible until they are purged.

    Args:
        ids: the deliveries.

    Returns:
        The number of discarded ones; those that are done, or run now, are left alone.
    """
    return sum(len(discard_together(some)) for some in _chunks(ids))


def discard_together(ids: Sequence[UUID]) -> list[UUID]:
    """Discard a few deliveries in one transaction; return those that were free.

    Args:
        ids: the deliveries.
    """
    alias = using()
    with transaction.atomic(using=alias):
        free = dict(unlocked(changeable().filter(id__in=ids)).values_list("id", "ordering_key"))
        rows = Delivery.objects.using(alias).filter(id__in=free)
        tell_of_rows("discarded", rows)
        rows.update(state=State.DISCARDED, ended_at=Now())
        for key in {key for key in free.values() if key}:
            wake(key)
    return list(free)


def changeable() -> QuerySet[Delivery]:
    """Return the deliveries that are neither done nor claimed; the caller skips those that are locked."""
    return Delivery.objects.using(using()).exclude(state__in=(State.DONE, State.RUNNING))


def _chunks(ids: Sequence[UUID], size: int = CHUNK) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))

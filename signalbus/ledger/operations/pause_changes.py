"""Pause a receiver, a signal or a queue, resume it, and list the pauses (decision 0047)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Case, F, When

from signalbus.ledger.base.clock import Now, in_utc, later
from signalbus.ledger.base.deliveries import storable, using
from signalbus.ledger.sweeps.releases import held_deliveries
from signalbus.models import Pause

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause, as people see it.

    Args:
        kind: the kind of what is paused: "receiver", "signal" or "queue".
        name: its name.
        reason: why; may be empty.
        by: the name of the person.
        since: when it began, in UTC.
        until: when it ends by itself, in UTC; None if somebody has to resume it.
        resumed_at: when it was resumed, in UTC; the sweepers release what it holds. None while it is in force.
        rate: deliveries a second that are released; None for as many as the sweepers can publish.
        held: how many deliveries it holds; None if they were not counted.
    """

    kind: str
    name: str
    reason: str
    by: str
    since: datetime
    until: datetime | None
    resumed_at: datetime | None
    rate: float | None
    held: int | None


def pause(  # noqa: PLR0913 - the columns
    kind: str, name: str, *, reason: str = "", by: str = "", by_id: str = "", seconds: float | None = None
) -> bool:
    """Hold what is for a receiver, a signal or a queue, from when the workers learn of it.

    Args:
        kind: "receiver", "signal" or "queue".
        name: its id or name.
        reason: why; shown with each delivery that is held.
        by: the name of the person who pauses it.
        by_id: the id of that user, if it has one.
        seconds: until it ends by itself; None if somebody has to resume it.

    Returns:
        False if it was paused before: that pause has these values now.
    """
    alias = using()
    # The first of them, because MariaDB computes each from those before.
    since = Case(When(resumed_at=None, then=F("since")), default=Now())
    name, until = storable(name), None if seconds is None else later(seconds)
    values = {
        "reason": storable(reason), "by": storable(by), "by_id": by_id, "until": until,
        "resumed_at": None, "resume_rate": None,
    }  # fmt: skip
    with transaction.atomic(using=alias):
        pauses = Pause.objects.using(alias)
        if pauses.filter(kind=kind, name=name).update(since=since, **values):
            return False
        return pauses.get_or_create(kind=kind, name=name, defaults={**values, "since": Now()})[1]


def resume(kind: str, name: str, *, rate: float | None = None) -> int | None:
    """End a pause: from then on nothing is held for it, and the sweepers release what it holds.

    Args:
        kind: "receiver", "signal" or "queue".
        name: its id or name.
        rate: deliveries a second, by all sweepers together; None for as many as they can publish.

    Returns:
        How many deliveries it holds; None if it is not paused.
    """
    pauses = Pause.objects.using(using()).filter(kind=kind, name=storable(name))
    # Waits for the transactions that hold something for it at this moment.
    if not pauses.update(resumed_at=Now(), resume_rate=rate):
        return None
    return held_deliveries(kind, name).count()


def pauses(*, counts_held: bool = True, limit: int | None = None) -> list[Paused]:
    """Return the pauses, the first paused first; also those whose deliveries are being released.

    Args:
        counts_held: count what each holds, which takes a while if that is a lot.
        limit: how many at most.
    """
    alias = using()

    def utc(moment: datetime | None) -> datetime | None:
        return None if moment is None else in_utc(moment, alias)

    return [
        Paused(
            row.kind, row.name, row.reason, row.by, in_utc(row.since, alias), utc(row.until),
            utc(row.resumed_at), row.resume_rate,
            held_deliveries(row.kind, row.name).count() if counts_held else None,
        )
        for row in Pause.objects.using(alias).order_by("since", "id")[:limit]
    ]  # fmt: skip

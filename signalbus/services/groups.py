"""Group failures by their cause: the same type of error, at the same place of the project's code, in the same receiver.

Called by ``failed --group``. The group of a failure is computed when it is recorded (decision 0046).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from django.db.models import Count, Max, Min

from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, FailedAttempt

if TYPE_CHECKING:
    from datetime import datetime

    from signalbus.services.filters import Filter

LIMIT: Final = 100  # groups that one answer lists


@dataclass(slots=True)
class FailureGroup:
    """The deliveries that failed for one cause and have not succeeded since.

    Args:
        id: the group.
        count: the number of deliveries.
        first: when the first of them failed for the last time.
        last: when the last one did.
        example: the delivery that failed last, with its message.
        attempts: failed attempts in this group that are still recorded, also those whose delivery succeeded later.
        states: the numbers of deliveries by their state.
    """

    id: str
    count: int
    first: datetime | None
    last: datetime | None
    example: Delivery
    attempts: int = 0
    states: Counter[str] = field(default_factory=Counter)


def failure_groups(wanted: Filter, limit: int = LIMIT) -> tuple[list[FailureGroup], bool]:
    """Return the groups of unresolved failures, the largest first.

    Args:
        wanted: a filter; without a state it narrows what `failed` lists.
        limit: how many groups at most.

    Returns:
        The largest groups, and whether there are more.
    """
    alias = ledger.using()
    rows = Delivery.objects.using(alias) if wanted.states else ledger.failed()
    rows = rows.filter(wanted.condition).exclude(error_group=None).order_by()
    counted = rows.values("error_group", "state").annotate(
        count=Count("id"), first=Min("failed_at"), last=Max("failed_at")
    )
    groups: dict[str, FailureGroup] = {}
    for row in counted:
        id_ = str(row["error_group"])
        group = groups.setdefault(id_, FailureGroup(id_, 0, row["first"], row["last"], Delivery()))
        group.count += row["count"]
        group.states[row["state"]] += row["count"]
        group.first = min(filter(None, (group.first, row["first"])), default=None)
        group.last = max(filter(None, (group.last, row["last"])), default=None)
    largest = sorted(groups.values(), key=lambda group: (-group.count, group.id))[:limit]
    # Only the id of each example is sorted for: rows are wide.
    examples = {
        group.id: rows.filter(error_group=group.id).order_by("-failed_at", "-id").values_list("id", flat=True)[:1][0]
        for group in largest
    }
    found = Delivery.objects.using(alias).select_related("message").in_bulk(list(examples.values()))
    recorded = FailedAttempt.objects.using(alias).filter(error_group__in=examples).order_by()
    attempts = dict(recorded.values_list("error_group").annotate(Count("id")))
    for group in largest:
        group.example, group.attempts = found[examples[group.id]], attempts.get(group.id, 0)
    return largest, len(groups) > limit

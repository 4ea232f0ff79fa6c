"""Group failures by their cause: the same type of error, at the same place of the project's code, in the same receiver.

Called by ``failed --group`` and by the admin. The group of a failure is computed when it is recorded (decision 0046).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

from django.db import connections, transaction
from django.db.models import CharField, Count, Max, Min, Q
from django.db.models.functions import Cast

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.ledger.history import KINDS, newest_release
from signalbus.models import Delivery, FailedAttempt
from signalbus.services.actors import OPERATE
from signalbus.services.audit_log import write_log

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from django.db.models import QuerySet

    from signalbus.services.actors import Actor
    from signalbus.services.filters import Filter

LIMIT: Final = 100  # groups that one answer lists
TOGETHER: Final = 100  # groups of one condition: SQLite refuses one of 1,000 parts
WINDOW: Final = 5_000  # failures that one page looks at
WINDOW_OF_ALL: Final = 100_000  # deliveries that it looks at where no index selects those that failed


@dataclass(slots=True)
class FailureGroup:
    """The deliveries that failed for one cause and have not succeeded since.

    Args:
        id: the group.
        count: the number of deliveries.
        first: when the first of them failed for the last time.
        last: when the last one did.
        example: the delivery that failed last, with its message.
        states: the numbers of deliveries by their state.
    """

    id: str
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    example: Delivery = field(default_factory=Delivery)
    states: Counter[str] = field(default_factory=Counter)

    def add(self, state: str, number: int, first: datetime | None, last: datetime | None) -> None:
        """Add its deliveries in one state.

        Args:
            state: their state.
            number: how many there are.
            first: when the first of them failed for the last time; None if that is not known.
            last: when the last one did.
        """
        self.count += number
        self.states[state] += number
        if first is not None and (self.first is None or first < self.first):
            self.first = first
        if last is not None and (self.last is None or last > self.last):
            self.last = last


@dataclass(frozen=True, slots=True)
class FailureGroups:
    """An answer.

    Args:
        groups: the largest groups, the largest first.
        has_more: whether there are more groups.
        end: the oldest delivery that was looked at; None if there are no older ones.
        looked_at: what was looked at, in words.
    """

    groups: list[FailureGroup]
    has_more: bool
    end: UUID | None = None
    looked_at: str = "all failures"


def failure_groups(wanted: Filter, limit: int = LIMIT) -> FailureGroups:
    """Return the groups of all unresolved failures.

    Args:
        wanted: a filter; without a state it narrows what `failed` lists.
        limit: how many groups at most.
    """
    rows = Delivery.objects.using(ledger.using()) if wanted.states else ledger.failed()
    return _grouped(rows.filter(wanted.condition), limit)


def newest_failure_groups(limit: int = LIMIT, after: UUID | None = None) -> FailureGroups:
    """Return the groups of the unresolved ones among the newest 5,000 failures, at a cost that does not grow.

    Args:
        limit: how many groups at most.
        after: only deliveries below this id: older ones.
    """
    alias = ledger.using()
    has_partial = connections[alias].features.supports_partial_indexes  # MySQL and MariaDB have none
    window = Delivery.objects.using(alias)
    if has_partial:
        window = window.filter(error_group__isnull=False)
    if after is not None:
        window = window.filter(pk__lt=after)
    size = WINDOW if has_partial else WINDOW_OF_ALL
    last = list(window.order_by("-pk").values_list("pk", flat=True)[size - 1 : size + 1])
    end = last[0] if len(last) > 1 else None
    rows = ledger.failed()
    if after is not None:
        rows = rows.filter(pk__lt=after)
    found = _grouped(rows if end is None else rows.filter(pk__gte=end), limit)
    looked_at = f"the newest {size:,} {'failures' if has_partial else 'deliveries'}"
    return replace(found, end=end, looked_at=looked_at)


def count_attempts(groups: Iterable[FailureGroup]) -> dict[str, int]:
    """Return for each group how many failed attempts are still recorded, also of deliveries that succeeded later.

    Args:
        groups: the groups.
    """
    recorded = FailedAttempt.objects.using(ledger.using()).filter(error_group__in=[group.id for group in groups])
    return dict(recorded.order_by().values_list("error_group").annotate(Count("id")))


def note_group(kind: str, group: str, *, actor: Actor, text: str = "") -> None:
    """Write a note about a group of failures, mute it until the next release, or end that.

    Args:
        kind: "note", "mute" or "unmute".
        group: the group.
        actor: who does it.
        text: what the note says, or why.

    Raises:
        PermissionDenied: the actor must not operate deliveries.
        ConfigurationError: the kind is none of these, or a note says nothing.
    """
    actor.require(OPERATE)
    if kind not in KINDS:
        raise ConfigurationError(f"{kind!r} must be one of {', '.join(KINDS)}.")
    if kind == "note" and not text.strip():
        raise ConfigurationError("A note needs a text.")
    with transaction.atomic(using=ledger.using()):
        write_log(actor, kind, {"group": group}, reason=text, details={"release": newest_release()})


def _grouped(rows: QuerySet[Delivery], limit: int) -> FailureGroups:
    """Return the largest groups of rows: the database adds them up; further statements read an example of each."""
    groups: dict[str, FailureGroup] = {}
    wanted = rows.filter(error_group__isnull=False).order_by()
    sums = {"number": Count("pk"), "first": Min("failed_at"), "last": Max("failed_at")}
    for cause, state, *found in wanted.values_list("error_group", "state").annotate(**sums):
        groups.setdefault(str(cause), FailureGroup(str(cause))).add(state, *found)
    largest = sorted(groups.values(), key=lambda group: (-group.count, group.id))[:limit]
    latest = _latest(wanted, largest)
    examples = Delivery.objects.using(ledger.using()).select_related("message").defer("traceback", "message__text")
    by_id = examples.in_bulk(list(latest.values()))
    # What was purged meanwhile is no example.
    shown = [group for group in largest if latest.get(group.id) in by_id]
    for group in shown:
        group.example = by_id[latest[group.id]]
    return FailureGroups(shown, len(groups) > limit)


def _latest(rows: QuerySet[Delivery], groups: list[FailureGroup]) -> dict[str, UUID]:
    """Return for each group the delivery that failed last; of several the one that was sent last."""
    latest: dict[str, UUID] = {}
    for start in range(0, len(groups), TOGETHER):
        last = Q()
        for group in groups[start : start + TOGETHER]:
            at = Q(failed_at=None) if group.last is None else Q(failed_at__gte=group.last)
            last |= Q(error_group=group.id) & at
        # As a text: PostgreSQL before 18 has no largest of UUIDs.
        found = rows.filter(last).values_list("error_group").annotate(latest=Max(Cast("pk", CharField())))
        latest |= {str(cause): UUID(key) for cause, key in found}
    return latest

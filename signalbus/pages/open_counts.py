"""Count what is open and what is dead, by queue and state, up to a limit; and find what has waited the longest.

A count looks at no more than 100,000 rows of an index, however many deliveries wait. Called by the web app's pages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from django.db import connections

from signalbus.celery import default_queue
from signalbus.ledger import operations as ledger
from signalbus.ledger.base.recording import WAIT
from signalbus.models import OPEN_STATES, Delivery, State

if TYPE_CHECKING:
    from datetime import datetime

COUNTED: Final = 100_000  # rows that are looked at
QUEUES: Final = 50  # whose oldest delivery is looked for
_WAITING: Final = (State.PUBLISHED, State.PENDING)


@dataclass(frozen=True, slots=True)
class Capped:
    """A number that may have stopped at its limit.

    Args:
        number: the number.
        is_capped: whether there are more.
    """

    number: int
    is_capped: bool = False

    def __str__(self) -> str:
        return f"{self.number:,}{'+' if self.is_capped else ''}"

    def __bool__(self) -> bool:
        return self.number > 0


@dataclass(slots=True)
class OpenCounts:
    """What is open.

    Args:
        states: the numbers of deliveries by state.
        queues: by queue, the numbers of its deliveries by state; the default queue under its name.
        oldest: by queue, since when its oldest delivery that is due has waited, in UTC.
        is_capped: whether there are more than were counted.
    """

    states: Counter[str] = field(default_factory=Counter)
    queues: dict[str, Counter[str]] = field(default_factory=dict)
    oldest: dict[str, datetime] = field(default_factory=dict)
    is_capped: bool = False

    def number(self, *states: State) -> Capped:
        """Return how many deliveries are in some states."""
        return Capped(sum(self.states[state.value] for state in states), self.is_capped)

    def waiting(self, queue: str) -> Capped:
        """Return how many deliveries of a queue wait for a worker, or for their time."""
        counts = self.queues.get(queue, Counter())
        return Capped(sum(counts[state.value] for state in _WAITING), self.is_capped)


def count_open() -> OpenCounts:
    """Count the open deliveries by queue and state, and find the oldest of each queue that waits for a worker."""
    alias = ledger.using()
    rows = Delivery.objects.using(alias).filter(ended_at=None, state__in=OPEN_STATES).order_by()
    found = OpenCounts()
    pairs = _grouped(rows.values_list("queue", "state")[: COUNTED + 1], alias)
    found.is_capped = sum(number for _, _, number in pairs) > COUNTED
    now = ledger.clock_of(alias)
    for stored, state, number in pairs:
        queue = stored or default_queue()
        found.states[state] += number
        found.queues.setdefault(queue, Counter())[state] += number
        if state not in _WAITING or len(found.oldest) >= QUEUES:
            continue
        # The sweeper looks at what is published for the first time after a while; at what is pending when it is due.
        wait = timedelta(seconds=WAIT if state == State.PUBLISHED else 0)
        due = rows.filter(queue=stored, state=state, due_at__lte=now + wait).order_by("due_at")
        for moment in due.values_list("due_at", flat=True)[:1]:
            utc = ledger.in_utc(moment, alias) - wait
            found.oldest[queue] = min(utc, found.oldest.get(queue, utc))
    return found


def count_ended(state: State, limit: int) -> Capped:
    """Count the deliveries that ended in a state; not those that are done, for which there is no index.

    Args:
        state: dead, skipped or discarded.
        limit: where the count stops.
    """
    rows = Delivery.objects.using(ledger.using()).filter(state=state).order_by()
    number = rows[: limit + 1].count()
    return Capped(min(number, limit), number > limit)


def _grouped(rows: object, alias: str) -> list[tuple[str, str, int]]:
    """Return how often each pair of queue and state occurs among rows that are limited: the ORM groups no slice."""
    inner, parameters = rows.query.sql_with_params()  # type: ignore[attr-defined]
    with connections[alias].cursor() as cursor:
        cursor.execute(
            f"SELECT queue, state, COUNT(*) FROM ({inner}) counted GROUP BY queue, state",  # noqa: S608 - Django's SQL
            parameters,
        )
        return [(queue, state, int(number)) for queue, state, number in cursor.fetchall()]

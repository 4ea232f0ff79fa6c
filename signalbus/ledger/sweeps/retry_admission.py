"""Limit how many retries of one receiver are in flight, so that a failing receiver does not delay the others.

`due` asks it which due rows it may take. Each worker's sweeper admits due retries up to the receiver's share of that
worker: half of its processes, or threads (decision 0041). The rows name the worker that admitted a retry, and nothing
is counted in memory: the shares of all workers add up to half of the fleet, and retries that a killed worker admitted
count in no share any more.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db import connections

from signalbus.ledger.base.deliveries import using
from signalbus.ledger.base.dialect import DELIVERIES
from signalbus.models import Delivery, State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from django.db.models import QuerySet

AHEAD: Final = 0.25  # seconds of work that are admitted for each slot, so that brief retries keep it busy
AGAIN: Final = (State.PENDING, State.HELD)  # of a delivery that has run before: it waits to run again
BRIEFEST: Final = 0.002  # seconds that any run takes, with the recording of its outcome

# To the letter as the index signalbus_admitted has it, or SQLite does not use that.
_ADMITTED: Final = "admitted_by IS NOT NULL AND state IN ('published', 'running')"


class DueRow(NamedTuple):
    """A row that is due, with the columns that decide whether it is published now."""

    id: UUID
    state: str
    publications: int
    ordering_key: str
    attempts: int
    receiver: str
    runtime_ms: int | None

    @property
    def is_retry(self) -> bool:
        """Whether it has run before, so that it needs admission."""
        return self.state in AGAIN and self.attempts > 0

    @property
    def is_released(self) -> bool:
        """Whether it was lost with a batch or a broker before an attempt of it was counted."""
        return self.state == State.PENDING and self.publications > 0 and not self.attempts

    @property
    def seconds(self) -> float:
        """Its expected run time: as long as the last run; an unknown one takes a slot of its own."""
        return _seconds(self.runtime_ms)


def _seconds(runtime_ms: int | None) -> float:
    return AHEAD if runtime_ms is None else max(BRIEFEST, runtime_ms / 1000)


@dataclass(frozen=True, slots=True)
class Share:
    """The limit on one receiver's retries that one worker admits.

    Args:
        worker: the worker's name.
        slots: processes, or threads, that the retries may keep busy.
    """

    worker: str
    slots: int


class Admission:
    """Decide which of the due retries are published now.

    Args:
        share: the limit of this worker; None for no limit.
    """

    def __init__(self, share: Share | None) -> None:
        self.worker: str | None = None if share is None else share.worker
        self._share = share
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self.full: set[str] = set()  # receivers of which some wait
        if share is not None:
            for receiver, runtime_ms in _on_their_way(share.worker):
                self._count(receiver, _seconds(runtime_ms))

    def _count(self, receiver: str, seconds: float) -> None:
        self._counts[receiver] += 1
        self._seconds[receiver] += seconds

    def takes(self, row: DueRow) -> bool:
        """Admit a row, if its receiver's share is not used up."""
        if self._share is None or not row.is_retry:
            return True
        slots, receiver = self._share.slots, row.receiver
        is_below_share = self._counts[receiver] < slots or self._seconds[receiver] + row.seconds <= slots * AHEAD
        if receiver in self.full or not is_below_share:
            self.full.add(receiver)
            return False
        self._count(receiver, row.seconds)
        return True

    def choose(self, rows: QuerySet[Delivery], limit: int) -> list[DueRow]:
        """Return the rows to publish now, in their order.

        Args:
            rows: the due rows.
            limit: the maximal number.
        """
        chosen: list[DueRow] = []
        while True:
            page = [DueRow(*row) for row in _columns(rows)[:limit]]
            known = len(self.full)
            chosen += [row for row in page if self.takes(row)][: limit - len(chosen)]
            if len(page) < limit or len(chosen) >= limit or len(self.full) == known:
                return chosen
            # Else the retries that wait would hide the rows that are due after them.
            rows = rows.exclude(state__in=AGAIN, attempts__gt=0, receiver__in=list(self.full))
            rows = rows.exclude(id__in=[row.id for row in chosen])


def _columns(rows: QuerySet[Delivery]) -> Any:
    return rows.order_by("due_at").values_list(*DueRow._fields)


def _on_their_way(worker: str) -> Sequence[tuple[str, int | None]]:
    with connections[using()].cursor() as cursor:
        cursor.execute(
            f"SELECT receiver, runtime_ms FROM {DELIVERIES} WHERE {_ADMITTED} AND admitted_by = %s", (worker,)
        )
        return list(cursor.fetchall())

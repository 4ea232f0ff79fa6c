"""Limit how many retries of one receiver are in flight, so that a failing receiver does not delay the others.

`due` asks it which due rows it may take. Each worker's sweeper admits due retries up to the receiver's share of that
worker: half of its processes, or threads (decision 0041). The rows name the worker that admitted a retry, and nothing
is counted in memory: the shares of all workers add up to half of the fleet, and retries that a killed worker admitted
count in no share any more.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.db import connections

from signalbus.ledger.base.deliveries import using
from signalbus.ledger.base.dialect import DELIVERIES, dialect_of
from signalbus.models import State

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

AHEAD: Final = 0.256  # seconds of work that are admitted for each slot: brief retries keep it busy in whole batches
AGAIN: Final = (State.PENDING, State.HELD)  # of a delivery that has run before: it waits to run again
LOOK_BEHIND: Final = 0.25  # seconds between two looks behind retries that wait, while nothing is found there
BRIEFEST: Final = 0.002  # seconds that any run takes, with the recording of its outcome

# To the letter as the index signalbus_admitted has it, or SQLite does not use that.
_ADMITTED: Final = "admitted_by IS NOT NULL AND state IN ('published', 'running')"


class DueRow(NamedTuple):
    """A row that is due, with the columns that decide whether it is published now; its id as the driver has it."""

    id: Any
    state: str
    publications: int
    ordering_key: str
    attempts: int
    receiver: str
    runtime_ms: int | None

    @property
    def is_retry(self) -> bool:
        """Whether it has run before, so that it needs admission."""
        return self.attempts > 0 and self.state in AGAIN

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


class DueRows(NamedTuple):
    """Rows that are due.

    Args:
        condition: the condition, in SQL.
        values: its values.
    """

    condition: str
    values: tuple[Any, ...] = ()

    def lock(
        self, limit: int, using: str, *, full: Collection[str] = (), chosen: Sequence[DueRow] = ()
    ) -> list[DueRow]:
        """Lock rows that no other transaction has locked, and return them by the time at which they are due.

        In raw SQL, because each retry costs it.

        Args:
            limit: the maximal number.
            using: the ledger's alias, in a transaction.
            full: receivers whose retries are left out.
            chosen: rows that are left out.
        """
        dialect = dialect_of(using)
        conditions, values = [self.condition], [*self.values]
        if full:
            conditions.append(f"NOT ({_IS_RETRY} AND receiver IN ({', '.join(['%s'] * len(full))}))")
            values += full
        if chosen:
            conditions.append(f"id NOT IN ({', '.join(['%s'] * len(chosen))})")
            values += [row.id for row in chosen]
        with connections[using].cursor() as cursor:
            cursor.execute(
                f"SELECT {_COLUMNS} FROM {DELIVERIES} WHERE {' AND '.join(conditions)} ORDER BY due_at LIMIT {limit} "
                f"{dialect.skip_locked}",
                values,
            )
            return list(map(DueRow._make, cursor.fetchall()))


_COLUMNS: Final = ", ".join(DueRow._fields)
_IS_RETRY: Final = f"state IN ({', '.join(repr(state.value) for state in AGAIN)}) AND attempts > 0"


@dataclass(slots=True)
class Share:
    """The limit on one receiver's retries that one worker admits.

    Args:
        worker: the worker's name.
        slots: processes, or threads, that the retries may keep busy.
        nothing_behind_until: a time by ``time.monotonic()``: until then nothing is looked for behind retries that wait.
    """

    worker: str
    slots: int
    nothing_behind_until: float = 0.0


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
        receiver = row.receiver
        if receiver in self.full:
            return False
        slots, seconds = self._share.slots, row.seconds
        if self._counts[receiver] < slots or self._seconds[receiver] + seconds <= slots * AHEAD:
            self._count(receiver, seconds)
            return True
        self.full.add(receiver)
        return False

    def choose(self, rows: DueRows, limit: int, using: str) -> list[DueRow]:
        """Lock the rows to publish now, and return them in their order.

        Args:
            rows: the due rows.
            limit: the maximal number.
            using: the ledger's alias, in a transaction.
        """
        chosen: list[DueRow] = []
        is_behind = False
        while True:
            page = rows.lock(limit, using, full=self.full, chosen=chosen)
            known, before = len(self.full), len(chosen)
            chosen += [row for row in page if self.takes(row)][: limit - len(chosen)]
            if is_behind and len(chosen) == before:
                self._note_nothing_behind()
            if len(page) < limit or len(chosen) >= limit or len(self.full) == known or not self._looks_behind():
                return chosen
            is_behind = True  # else the retries that wait would hide the rows that are due after them

    def _looks_behind(self) -> bool:
        """Return whether to look for rows behind the retries that wait, which reads all of these."""
        return self._share is None or time.monotonic() >= self._share.nothing_behind_until

    def _note_nothing_behind(self) -> None:
        if self._share is not None:
            self._share.nothing_behind_until = time.monotonic() + LOOK_BEHIND


def _on_their_way(worker: str) -> Sequence[tuple[str, int | None]]:
    with connections[using()].cursor() as cursor:
        cursor.execute(
            f"SELECT receiver, runtime_ms FROM {DELIVERIES} WHERE {_ADMITTED} AND admitted_by = %s", (worker,)
        )
        return list(cursor.fetchall())

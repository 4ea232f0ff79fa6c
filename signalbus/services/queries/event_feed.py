"""Read from the ledger what happens to deliveries, in any process, by looking again each second.

Called by ``manage.py signalbus tail``. Rows of the ledger tell that a delivery was recorded, ended or was parked, that
an attempt failed, and that one has been running for more than a second. They do not tell of deliveries of signals that
are not durable and succeed, and not of a publication, a claim, a retry by hand or a hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, FailedAttempt, RunningDelivery, State
from signalbus.services.actors import VIEW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from signalbus.services.actors import Actor
    from signalbus.services.filters import Filter

OVERLAP: Final = timedelta(seconds=5)  # that is read again: a row bears a time from before its commit
EARLIER: Final = 500  # numbers of failed attempts that are read again, for the same reason
MOST: Final = 10_000  # rows of a kind in one look; the next look goes on from there
FIRST_ID: Final = UUID("00000000-0000-7000-8000-000000000000")  # MariaDB sorts UUIDs of other versions otherwise
_MILLISECONDS: Final = 1000
_RANDOM_BITS: Final = 80  # of a UUIDv7, behind its time


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event of a delivery.

    Args:
        kind: ``sent``, ``running``, ``failed``, ``done``, ``dead``, ``skipped``, ``discarded`` or ``parked``.
        at: when, by the database's clock, as its columns are read.
        delivery: the delivery with its message, as it is now, without traceback and text.
        attempt: the number of the attempt; 0 if there was none.
        runtime_ms: how long the attempt took, if that is known.
        worker: the process that ran it; empty if none did, or it is not known.
        release: the release of its code; of a failed attempt only.
        error: the error; empty if there is none.
    """

    kind: str
    at: datetime
    delivery: Delivery
    attempt: int = 0
    runtime_ms: int | None = None
    worker: str = ""
    release: str = ""
    error: str = ""


class _Position:
    """A position in rows of one kind that are read in their order, again and again.

    Args:
        floor: the position from which on rows are read.
    """

    def __init__(self, floor: Any) -> None:
        self.floor = floor
        self._seen: set[Any] = set()

    def new(self, rows: Iterable[Any], next_floor: Any) -> list[Any]:
        """Return the positions that were not read before, and go on.

        Args:
            rows: the positions of rows at the floor and above, in their order, `MOST` at most.
            next_floor: where to read from the next time, if these were all.
        """
        read = list(rows)
        fresh = [position for position in read if position not in self._seen]
        self.floor = read[-1] if len(read) == MOST else max(self.floor, next_floor)
        self._seen = {position for position in (*self._seen, *fresh) if position >= self.floor}
        return fresh


class EventFeed:
    """The events of deliveries since a time, in the order of their times within each look.

    Args:
        actor: who asks.
        wanted: which deliveries, as they are when an event is read.
        since: how long ago to begin.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """

    def __init__(self, actor: Actor, wanted: Filter, since: timedelta = timedelta()) -> None:
        actor.require(VIEW)
        self._wanted = wanted
        self._alias = ledger.using()
        self._begin = ledger.clock_of(self._alias) - since
        self._sent = _Position(self._id_at(self._begin))
        self._ended = _Position((self._begin, FIRST_ID))
        self._parked = _Position((self._begin, FIRST_ID))
        self._failed: _Position | None = None
        self._running: set[tuple[Any, ...]] = set()

    def look(self) -> list[FeedEvent]:
        """Return what happened since the last look.

        Raises:
            DatabaseError: the database cannot be asked.
        """
        until = ledger.clock_of(self._alias) - OVERLAP
        events = [*self._look_sent(until), *self._look_ended(until), *self._look_parked(until)]
        events += [*self._look_failed(), *self._look_running()]
        return sorted(events, key=lambda event: event.at)

    def _look_sent(self, until: datetime) -> Iterator[FeedEvent]:
        rows = self._rows().filter(pk__gte=self._sent.floor).order_by("pk").values_list("pk", flat=True)
        fresh = self._sent.new(rows[:MOST], self._id_at(until))
        for delivery in self._selected(fresh).values():
            if delivery.created_at >= self._begin:
                yield FeedEvent("sent", delivery.created_at, delivery)

    def _look_ended(self, until: datetime) -> Iterator[FeedEvent]:
        fresh = self._ended.new(self._from("ended_at", self._ended.floor), (until, FIRST_ID))
        found = self._selected(pk for _, pk in fresh)
        for at, pk in fresh:
            each = found.get(pk)
            if each is not None and each.ended_at is not None:  # it may have been retried since
                yield FeedEvent(each.state, at, each, each.attempts, each.runtime_ms, each.worker, error=each.error)

    def _look_parked(self, until: datetime) -> Iterator[FeedEvent]:
        rows = self._from("parked_at", self._parked.floor, state=State.PARKED)
        fresh = self._parked.new(rows, (until, FIRST_ID))
        found = self._selected(pk for _, pk in fresh)
        for at, pk in fresh:
            if (each := found.get(pk)) is not None:
                yield FeedEvent("parked", at, each, each.attempts, error=each.error)

    def _look_failed(self) -> Iterator[FeedEvent]:
        rows = FailedAttempt.objects.using(self._alias)
        if self._failed is None:
            recent = list(rows.order_by("-id").values_list("id", "ended_at")[:MOST])
            after = recent[0][0] + 1 if recent else 0
            self._failed = _Position(min((id_ for id_, at in recent if at >= self._begin), default=after))
        read = list(rows.filter(id__gte=self._failed.floor).order_by("id").defer("traceback")[:MOST])
        by_id = {row.pk: row for row in read}
        top = max((row.pk for row in read), default=0) - EARLIER
        fresh = [by_id[id_] for id_ in self._failed.new(list(by_id), top)]
        found = self._selected(row.delivery_id for row in fresh)
        for row in fresh:
            each = found.get(row.delivery_id)
            # The last attempt of a delivery that is dead is told by its end.
            if each is not None and not (each.state == State.DEAD and row.number == each.attempts):
                details = (row.number, row.runtime_ms, row.worker, row.release, row.error)
                yield FeedEvent("failed", row.ended_at, each, *details)

    def _look_running(self) -> Iterator[FeedEvent]:
        rows = list(RunningDelivery.objects.using(self._alias).order_by("started_at")[:MOST])
        known, self._running = self._running, {(row.worker, row.delivery, row.attempt) for row in rows}
        fresh = [row for row in rows if (row.worker, row.delivery, row.attempt) not in known]
        found = self._selected(row.delivery for row in fresh)
        for row in fresh:
            if (each := found.get(row.delivery)) is not None:
                yield FeedEvent("running", row.started_at, each, row.attempt, worker=row.worker)

    def _rows(self) -> Any:
        return Delivery.objects.using(self._alias)

    def _from(self, column: str, floor: tuple[datetime, UUID], **condition: Any) -> Any:
        """Return the positions of deliveries by a time, from a time and an id on: many rows may bear one time."""
        moment, first = floor
        rows = self._rows().filter(**{f"{column}__gte": moment}, **condition).exclude(**{column: moment}, pk__lt=first)
        return rows.order_by(column, "pk").values_list(column, "pk")[:MOST]

    def _selected(self, ids: Iterable[UUID]) -> dict[UUID, Delivery]:
        """Return those of some deliveries that the filter selects, by their ids."""
        wanted = list(dict.fromkeys(ids))
        found: dict[UUID, Delivery] = {}
        rows = self._rows().filter(self._wanted.condition).select_related("message").defer("traceback", "message__text")
        for start in range(0, len(wanted), ledger.CHUNK):
            found |= {row.pk: row for row in rows.filter(pk__in=wanted[start : start + ledger.CHUNK])}
        return found

    def _id_at(self, moment: datetime) -> UUID:
        """Return the smallest id that is made at a time, by the clock of its sender."""
        seconds = ledger.in_utc(moment, self._alias).timestamp()
        return UUID(int=int(seconds * _MILLISECONDS) << _RANDOM_BITS | FIRST_ID.int)

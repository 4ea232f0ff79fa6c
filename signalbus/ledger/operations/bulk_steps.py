"""Do the steps of an operation in bulk: one delivery, ten, and the rest at its rate (decision 0050).

The sweepers call `step`. A step is one transaction, which locks the row of the operation, changes deliveries and notes
how far it came: a step that is broken off has done nothing, and two sweepers never do the same one.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Count, F, Q

from signalbus.ledger.base.clock import Now, clock_of, in_utc
from signalbus.ledger.base.deliveries import using
from signalbus.ledger.base.delivery_filters import Filter, FilterError, parse_filter
from signalbus.ledger.operations.bulk_rows import CHANGED, STARTED
from signalbus.ledger.operations.failed_deliveries import (
    REFUSED,
    UNRESOLVED,
    changeable,
    discard_together,
    retry_together,
)
from signalbus.models import CLOSED_STATES, OPEN_STATES, Delivery, FailedAttempt, Operation, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import QuerySet

logger: logging.Logger = logging.getLogger("signalbus")

BATCH: Final = 200  # deliveries of one step: short on databases with one writer at a time
TEN: Final = 10
TRIAL_SECONDS: Final = 0.5  # between two looks at the deliveries that must end well
AGAIN_SECONDS: Final = 0.2  # between two looks at a rate that is used up
MOST_SECONDS: Final = 10.0  # of a rate that are made up for if no sweeper has done a step meanwhile
COUNT_SECONDS: Final = 2.0  # between two counts of what has become of the retried ones
COUNT_PAUSES: Final = 20  # times as long as a count took is waited at least until the next one
MOST_GROUPS: Final = 100  # of failures that an operation looks out for
EXAMPLES: Final = 10  # of deliveries that failed again
# Keys of a filter that say the same of a delivery whatever becomes of it.
LASTING_KEYS: Final = frozenset({"signal", "receiver", "queue", "subject", "message", "id", "root", "since", "until"})


def step(operation: int) -> float | None:
    """Do the next step of an operation.

    Args:
        operation: its number.

    Returns:
        The seconds until the next step, 0 for at once; None if there is none for now: it has ended or is paused, or
        another sweeper is doing one.
    """
    alias = using()
    with transaction.atomic(using=alias):
        rows = Operation.objects.using(alias).filter(pk=operation, state__in=STARTED)
        features = connections[alias].features
        row = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked).first()
        if row is None:
            return None
        wait = _Steps(row).advance()
        row.save(using=alias, update_fields=["state", "counts", "details", "started_at", "ended_at"])
    return wait


def failed_again(operation: int, limit: int) -> list[Delivery]:
    """Return deliveries that an operation retried, and that have failed since and not succeeded, the oldest first.

    Args:
        operation: its number.
        limit: the maximal number.
    """
    rows = Operation.objects.using(using()).filter(pk=operation, kind="retry", details__has_key="stage")
    row = rows.exclude(started_at=None).first()
    if row is None:
        return []
    try:
        failing = _Steps(row).failing()
    except FilterError:  # of another version; the operation has stopped, and says so
        return []
    return list(failing.select_related("message").order_by("id")[:limit])


class _Steps:
    """An operation, as far as it has come; its row is locked.

    Args:
        row: the row; what changes is noted in it, and saved by the caller.
    """

    def __init__(self, row: Operation) -> None:
        self._row = row
        self._alias = using()
        self._counts: dict[str, int] = row.counts
        self._details: dict[str, Any] = row.details
        self._changed_name = CHANGED[row.kind]

    def advance(self) -> float | None:
        """Do a step, and return the seconds until the next one; None if it has ended."""
        try:
            seconds = self._begin() if self._row.state == "waiting" else self._go_on()
        except FilterError as error:  # this version does not know a key that another one stored
            seconds = 0.0
            self._stop(str(error), None, ())
        return None if self._row.state in {"stopped", "done"} else seconds

    def _begin(self) -> float:
        found = self._selection().count()
        limit = self._details["limit"]
        self._counts.update({"found": found if limit is None else min(found, limit), self._changed_name: 0})
        self._row.state, self._row.started_at = "running", Now()
        return 0.0

    def _go_on(self) -> float:
        is_ending = self._details["stage"] == "ending"
        if self._row.kind == "retry":
            seconds = 0.0 if is_ending else self._look_for_failures()
            if self._row.state == "stopped":
                return seconds
            if is_ending or self._clock() >= self._details.get("count_at", 0.0):
                self._count()
            if seconds:
                return seconds
        if not is_ending:
            return self._next_batch()
        if self._counts.get("waiting"):
            count_at: float = self._details["count_at"]
            return max(AGAIN_SECONDS, count_at - self._clock())
        self._row.state, self._row.ended_at = "done", Now()
        logger.info("signalbus operation %d is done: %s", self._row.pk, self._counts)
        return 0.0

    def _next_batch(self) -> float:
        stage, limit = self._details["stage"], self._details["limit"]
        size, wait = self._size(stage)
        if limit is not None:
            size = min(size, limit - self._counts[self._changed_name])
        ids = list(self._selection().order_by("id").values_list("id", flat=True)[:size]) if size else []
        changed = self._change(ids)
        is_at_limit = limit is not None and self._counts[self._changed_name] >= limit
        if is_at_limit or len(ids) < size:
            self._details["stage"] = "ending"
            self._details.pop("trial", None)
            return 0.0 if self._row.kind == "discard" else AGAIN_SECONDS
        if stage == "rest":
            return wait
        if not changed:  # all were locked: try the next ones
            return 0.0
        self._details["trial"] = list(map(str, changed))
        self._details["stage"] = "ten" if stage == "first" else "rest"
        return TRIAL_SECONDS

    def _size(self, stage: str) -> tuple[int, float]:
        """Return how many deliveries may be changed now, and the seconds until there may be more."""
        rate = self._row.rate
        if stage == "first":
            return 1, 0.0
        if stage == "ten":
            return TEN if rate is None else max(1, min(TEN, math.floor(rate))), 0.0
        if rate is None:
            return BATCH, 0.0
        now = self._clock()
        since = self._details.get("credit_at")
        since = now - 1 / rate if since is None else max(since, now - max(MOST_SECONDS, 1 / rate))
        count = min(BATCH, math.floor(rate * (now - since) + 1e-6))
        self._details["credit_at"] = since + count / rate
        return count, 0.0 if count == BATCH else max(AGAIN_SECONDS, self._details["credit_at"] + 1 / rate - now)

    def _change(self, ids: Sequence[UUID]) -> Sequence[UUID]:
        """Change deliveries, and note how far it came; return those that were not locked."""
        if not ids:
            return ()
        self._details["after"] = str(ids[-1])
        if self._row.kind == "discard":
            changed = discard_together(ids)
        else:
            retried = retry_together(ids)
            changed = list(retried)
            groups = dict.fromkeys([*self._details.get("groups", ()), *filter(None, retried.values())])
            self._details["groups"] = list(groups)[:MOST_GROUPS]
            self._add("waiting", len(changed))
        self._add(self._changed_name, len(changed))
        self._add("left_alone", len(ids) - len(changed))
        return changed

    def _look_for_failures(self) -> float:
        """Stop if what it retried has failed again; return the seconds to wait for the trial, 0 if it has ended."""
        again = self._same_failures()
        trial = self._details.get("trial", ())
        rows = list(self._deliveries().filter(id__in=list(map(UUID, trial))).exclude(state__in=CLOSED_STATES))
        known = {row.pk for row in again}
        again += [
            row
            for row in rows
            if row.pk not in known and (row.state in {State.DEAD, State.PARKED} or self._failed_ungrouped(row))
        ]
        if again:
            self._stop(again[0].error or "an attempt failed again", again[0].error_group, again)
        elif rows:
            return TRIAL_SECONDS
        elif trial:
            del self._details["trial"]
            self._details["count_at"] = 0.0
        return 0.0

    def _failed_ungrouped(self, row: Delivery) -> bool:
        """Return whether a delivery has failed again whose group was not known, as of those that 0.4 recorded."""
        since: Any = self._row.started_at
        return bool(not self._details["groups"] and row.error_group and row.failed_at and row.failed_at > since)

    def _same_failures(self) -> list[Delivery]:
        """Return deliveries that it retried, and of which an attempt has failed again in a group that they had."""
        groups, after = self._details.get("groups"), self._details.get("after")
        if not groups:
            return []
        attempts = FailedAttempt.objects.using(self._alias).filter(
            error_group__in=groups, ended_at__gt=self._row.started_at, delivery_id__lte=UUID(after)
        )
        last = dict(attempts.order_by("-delivery_id", "number").values_list("delivery_id", "number")[: 10 * BATCH])
        ids, found = sorted(last), []
        for start in range(0, len(ids), BATCH):
            rows = self._changed().filter(id__in=ids[start : start + BATCH]).order_by("id")
            found += [row for row in rows if last[row.pk] > row.allowance]
        return found

    def _count(self) -> None:
        """Count what has become of the deliveries that it retried; seldom, if that takes long."""
        began = time.monotonic()
        again = self._again()
        # As `retry_together` left them; the group is that of the failure before.
        same = Q(error_group=None) | Q(error_group__in=self._details.get("groups", ()))
        waiting = Q(state__in=OPEN_STATES, attempts__lte=F("allowance") + 1) & same & ~again
        counted = self._changed().exclude(state__in=CLOSED_STATES).aggregate(
            failed_again=Count("id", filter=again), waiting=Count("id", filter=waiting)
        )  # fmt: skip
        self._counts.update(counted)
        took = time.monotonic() - began
        self._details["count_at"] = self._clock() + max(COUNT_SECONDS, COUNT_PAUSES * took)

    def failing(self) -> QuerySet[Delivery]:
        """Return the deliveries that it retried, and that have failed since and not succeeded."""
        return self._changed().filter(self._again()).exclude(state__in=CLOSED_STATES)

    def _again(self) -> Q:
        since: Any = self._row.started_at
        has_failed = Q(failed_at__isnull=False, failed_at__gt=since) & (Q(state=State.DEAD) | ~Q(error_group=None))
        return has_failed | Q(state=State.PARKED, parked_at__isnull=False, parked_at__gt=since)

    def _stop(self, error: str, group: str | None, rows: Sequence[Delivery]) -> None:
        if rows:
            self._count()
        self._row.state, self._row.ended_at = "stopped", Now()
        self._details["stopped"] = {"error": error, "group": group, "ids": [str(row.pk) for row in rows[:EXAMPLES]]}
        what = f"{self._row.kind} {self._row.filter['filter']}"
        logger.warning("signalbus operation %d (%s) stopped: %s", self._row.pk, what, error)

    def _deliveries(self) -> QuerySet[Delivery]:
        return Delivery.objects.using(self._alias)

    def _read(self, words: Sequence[str]) -> Filter:
        return parse_filter(words, self._row.created_at)

    def _selection(self) -> QuerySet[Delivery]:
        """Return the deliveries that it has not come to yet."""
        wanted = self._read(self._details["words"])
        rows = changeable().filter(wanted.condition, self._bound())
        # What fails later, or ends so, is not what was asked for; what is dead since without another run is.
        asked_at = self._row.created_at
        had_ended = Q(ended_at=None) | Q(ended_at__lte=asked_at) | Q(state=State.DEAD, failed_at__lte=asked_at)
        rows = rows.filter(Q(failed_at=None) | Q(failed_at__lte=asked_at), had_ended)
        if not wanted.states:
            rows = rows.filter(UNRESOLVED)
        if self._row.kind == "retry":
            rows = rows.exclude(REFUSED)
        after = self._details.get("after")
        return rows if after is None else rows.filter(id__gt=UUID(after))

    def _changed(self) -> QuerySet[Delivery]:
        """Return the deliveries that it has come to, as far as their rows tell, whatever has become of them."""
        after = self._details.get("after")
        if after is None:
            return self._deliveries().none()
        words = [word for word in self._details["words"] if word.partition(":")[0] in LASTING_KEYS]
        rows = self._deliveries().filter(self._read(words).condition, self._bound(), id__lte=UUID(after))
        # One that was retried by hand, or was not run before.
        return rows.filter(Q(allowance__gt=0) | (Q(attempts=0) & ~Q(error="")))

    def _bound(self) -> Q:
        below = self._details["below"]
        return Q(created_at__lte=self._row.created_at) & (Q() if below is None else Q(id__lt=UUID(below)))

    def _add(self, name: str, number: int) -> None:
        if number or name in self._counts:
            self._counts[name] = self._counts.get(name, 0) + number

    def _clock(self) -> float:
        return in_utc(clock_of(self._alias), self._alias).timestamp()

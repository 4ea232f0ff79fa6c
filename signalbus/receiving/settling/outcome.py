"""Decide what a failed attempt means: retry, dead, skipped, parked, or not counted; and have that recorded.

`running/attempt` and `running/group_commit` call the same functions, each with its way of recording the outcome
(`Settling`). The delay of a retry comes from `retry.py`. A success needs no decision: its receipt is part of the
receiver's commit.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from django.db import Error

from signalbus.core.error_groups import group_of
from signalbus.exceptions import RetryLater, SignalBusError
from signalbus.ledger import attempts as ledger
from signalbus.models import State
from signalbus.receiving.invoking.invocation import NotKnownHere
from signalbus.receiving.invoking.runner import Outcome, conclude, strip_traceback
from signalbus.receiving.process import task_log
from signalbus.receiving.process.database_connections import reset_connections
from signalbus.receiving.process.interruption import is_shutting_down, was_cut_off
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.settling.parking import park

if TYPE_CHECKING:
    from signalbus.receiving.invoking.invocation import Attempt

logger: logging.Logger = logging.getLogger("signalbus")

STATES = {"done": State.DONE, "skipped": State.SKIPPED, "failed": State.PENDING, "dead": State.DEAD}


class Settling(Protocol):
    """The way in which the end of an attempt is recorded, which depends on its transaction."""

    def undo(self, attempt: Attempt, error: BaseException) -> None:
        """Do not count the attempt: the message names a model or class that this worker does not have."""

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Record the outcome of the attempt, and emit its event after the commit."""


def end_failed(attempt: Attempt, error: BaseException, settling: Settling) -> None:
    """Decide what a receiver's error means, and have that recorded.

    Args:
        attempt: the attempt; the writes of its receiver are rolled back.
        error: the error that its receiver raised.
        settling: records the outcome.
    """
    if isinstance(error, NotKnownHere):
        settling.undo(attempt, error)
    else:
        settling.settle(attempt, _conclude(attempt, error))


def raise_if_cut_off(attempt: Attempt, error: BaseException) -> None:
    """Raise the error of a run that a shutdown or a signal to its process has interrupted.

    The error leaves the Celery task, so that the broker delivers the message again.

    Args:
        attempt: the attempt.
        error: what its receiver raised.

    Raises:
        BaseException: the error, if it says that the worker shuts down or that the process was told to end.
    """
    if not was_cut_off():
        return
    shutdown = is_shutting_down()
    what = (attempt.message.signal, attempt.recipient, attempt.number)
    why = "the worker shuts down, which is no attempt" if shutdown else "its process was told to end"
    logger.warning("signalbus: %s to %s was cut off in attempt %s: %s", *what, why)
    if shutdown and attempt.claimed and _undo_claim(attempt):
        attempt.tell("requeued")
    raise error


def unclaim(attempt: Attempt) -> None:
    """Undo a claim after an error that came before the receiver was called: that was no attempt.

    If the ledger cannot be reached, the claim stays, and the attempt counts.
    """
    try:
        reset_connections()
        if _undo_claim(attempt):
            attempt.tell("requeued")
    except Error as error:
        logger.warning("signalbus: attempt %s of %s has not begun, and counts: %s", attempt.number, attempt.id, error)


def _undo_claim(attempt: Attempt) -> bool:
    return ledger.unclaim(attempt.id, attempt.number)


def _conclude(attempt: Attempt, error: BaseException) -> Outcome:
    """Decide what a receiver's error means for its delivery."""
    strip_traceback(error)
    return conclude(
        error,
        attempt=attempt.number - attempt.since,
        retry=attempt.receiver.retry,
        on_missing=attempt.receiver.policy.on_missing,
        spread=random.random(),  # noqa: S311 - spreads retries; guards nothing
    )


def settlement_of(attempt: Attempt, outcome: Outcome, took: float | None) -> ledger.Settlement:
    """Return what the ledger records of an attempt.

    Args:
        attempt: the attempt.
        outcome: how it ended.
        took: seconds that the receiver ran; None if they are not recorded.
    """
    group = worker = ""
    if outcome.error is not None and has_failed(outcome):
        group, worker = group_of(outcome.error, attempt.recipient), worker_name()
    return ledger.Settlement(
        state=STATES[outcome.kind],
        error=outcome.reason,
        traceback=outcome.traceback,
        delay=outcome.delay,
        took=took,
        error_group=group,
        worker=worker,
    )


def has_failed(outcome: Outcome) -> bool:
    """Return whether an outcome is a failure: a receiver that asks to be run later has not failed."""
    return outcome.kind == "dead" or (outcome.kind == "failed" and not isinstance(outcome.error, RetryLater))


@dataclass(frozen=True, slots=True)
class OwnTransaction:
    """Record the end of an attempt that had a transaction of its own, or none, in another transaction.

    Args:
        took: seconds that its receiver ran; None if they are not recorded.
    """

    took: float | None = None

    def undo(self, attempt: Attempt, error: BaseException) -> None:
        """Undo the claim, and park the delivery."""
        if not attempt.claimed or _undo_claim(attempt):
            park(attempt.message, [attempt.recipient], attempt.receiver.queue, str(error))

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Record the outcome, unless the claim was lost, and emit its event."""
        message, recipient = attempt.message, attempt.recipient
        settlement = settlement_of(attempt, outcome, self.took)
        if not attempt.recorded:
            ledger.record_settled(message, recipient, attempt.receiver.queue, settlement)
        else:
            seen = attempt.number if attempt.claimed else attempt.number - 1
            # What was claimed under suspicion stays suspect: else every second run of it could end a worker uncounted.
            suspect = attempt.claimed and attempt.receiver.atomic
            if not ledger.settle(attempt.id, settlement, seen=seen, attempt=attempt.number, suspect=suspect):
                task_log.note(message.signal, recipient, "failed after its claim was lost, or was done")
                text = "signalbus: %s to %s failed after its claim was lost, or was done"
                logger.warning(text, message.id, recipient, exc_info=outcome.error)
                return
        attempt.tell(outcome.kind, outcome.error, outcome.delay)


def end_spent(attempt: Attempt) -> None:
    """Set a delivery to dead that has had all its attempts, with the error of the last one.

    Args:
        attempt: the attempt after the last one; its receiver is not called, and its row does not count it.
    """
    attempt.number -= 1
    attempt.claimed = False
    error, traceback, group = ledger.last_failure(attempt.id)
    error = error or f"its worker was lost in attempt {attempt.number}"  # by a worker of 0.5, which wrote nothing down
    settlement = ledger.Settlement(state=State.DEAD, error=error, traceback=traceback, error_group=group, ran=False)
    if ledger.settle(attempt.id, settlement, seen=attempt.number, attempt=attempt.number):
        most = attempt.receiver.retry.max_attempts
        spent = SignalBusError(f"attempt {attempt.number} was the last one (max_attempts is {most}): {error}")
        if traceback:
            spent.__cause__ = SignalBusError(f"before\n{traceback}")
        attempt.tell("dead", spent)

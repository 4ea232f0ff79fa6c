"""Run one delivery by itself: take or claim its row, call the receiver, and commit its writes with its receipt.

`receiving/routing/resolution` and `grouping` call it (decision 0028). There are three ways. A delivery without a row
runs, and gets a row only if it fails. A recorded delivery is set to done by the first statement of its receiver's
transaction: whatever ends the worker rolls that back. A delivery that is suspect (redelivered, published again,
retried after a lost process), or whose receiver has no transaction, is first claimed in a commit of its own, so that
an attempt that ends its worker is counted.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.transaction import TransactionManagementError

from signalbus.compat.django_internals import connection_to, rollback_error
from signalbus.exceptions import SignalBusError
from signalbus.ledger import attempts as ledger
from signalbus.models import State
from signalbus.receiving.invoking.invocation import Attempt, call_receiver
from signalbus.receiving.process import task_log
from signalbus.receiving.process.database_connections import (
    left_open,
    reject_broken,
    reset_connections,
    rolled_back_if_broken,
)
from signalbus.receiving.process.leases import LEASE, leases
from signalbus.receiving.process.receiver_runtimes import BRIEF
from signalbus.receiving.process.session_state import end_changed_sessions, is_changed
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.running.gates import Held, decide
from signalbus.receiving.running.sequencing import messages_in_turn
from signalbus.receiving.settling.lost_processes import WORKER_LOST, settle_redelivered
from signalbus.receiving.settling.outcome import OwnTransaction, end_failed, end_spent, raise_if_cut_off, unclaim

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.registration.registry import Receiver
    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")

CLAIM_LEASE = 10.0  # seconds; until then the receiver's transaction must have locked the row, which keeps it
WORTH_TELLING = 0.01  # seconds that a run must have taken to be worth a statement that says so


class NotRun(SignalBusError):  # noqa: N818 - says what happened
    """The receiver did not run, or was rolled back, and no outcome is recorded."""


class Dropped(NotRun):
    """The delivery is done, runs elsewhere, or is not due."""


class LostClaim(NotRun):
    """Another worker has claimed the delivery since."""


class Suspect(NotRun):
    """The delivery was lost before, perhaps because it ends its worker: it must be claimed before it runs."""


class Spent(NotRun):
    """The delivery has had all its attempts: `max_attempts` was lowered, or the last attempt was lost."""


@dataclass(slots=True)
class Run:
    """The progress of an attempt, from which its outcome is recorded."""

    attempt: Attempt
    begun: bool = False
    committed: bool = False
    took: float = 0.0  # seconds, in the receiver

    def note_commit(self) -> None:
        """Note the commit: an error after it does not make the receiver run again."""
        self.committed = True


def deliver_one(message: Message, recipient: str, receiver: Receiver, *, redelivered: bool) -> None:
    """Run a receiver for a message; of an ordered signal, for the messages of its key that may run now."""
    if not message.is_ordered:
        recorded = message.recorded or redelivered
        deliver_attempt(Attempt(message, recipient, receiver, recorded=recorded), redelivered=redelivered)
        return
    for turn in messages_in_turn(message, recipient, receiver.queue):
        own = turn.id == message.id
        attempt = Attempt(turn, recipient, receiver, recorded=True)
        # If the process dies, only the message at hand is redelivered, not this one: so it is claimed first.
        deliver_attempt(attempt, redelivered=redelivered and own, claim=redelivered or not own)


def deliver_attempt(attempt: Attempt, *, redelivered: bool = False, claim: bool = False) -> None:
    """Run a receiver in a context of its own: what it activates ends with it.

    Args:
        attempt: the attempt to run.
        redelivered: the broker has delivered its message before.
        claim: claim it before it runs, so that the attempt is counted.
    """
    try:
        try:
            _run_as_due(attempt, redelivered=redelivered, claim=claim)
        except Dropped:
            attempt.row = ledger.earlier_id(attempt.message.id, attempt.recipient)
            if attempt.row is None:
                raise
            _run_as_due(attempt, redelivered=redelivered, claim=claim)
    except Dropped:
        task_log.note(attempt.message.signal, attempt.recipient, "runs elsewhere, or was delivered already")
        text = "signalbus: %s to %s runs elsewhere, or was delivered already"
        logger.info(text, attempt.message.id, attempt.recipient)
    except LostClaim as error:
        task_log.note(attempt.message.signal, attempt.recipient, "rolled back: its claim was lost")
        logger.warning("signalbus rolled back: %s", error)


def _run_as_due(attempt: Attempt, *, redelivered: bool, claim: bool) -> None:
    suspect = redelivered or claim
    verdict = decide(attempt.message, attempt.receiver, recorded=attempt.recorded, suspect=suspect, alone=True)
    if isinstance(verdict, Held):
        _hold(attempt, verdict, redelivered=redelivered)
        return
    if verdict == "claim":
        _run_claimed(attempt, redelivered=redelivered)
        return
    try:
        contextvars.copy_context().run(_run, attempt)
    except Suspect:
        pass
    except Spent:
        end_spent(attempt)
        return
    else:
        return
    # Outside of the except block: otherwise Suspect would be the __context__ of every error that the receiver raises.
    _run_claimed(attempt)


def _hold(attempt: Attempt, held: Held, *, redelivered: bool) -> None:
    """Let a delivery wait that a gate holds; no attempt is counted."""
    unrecorded = None if attempt.recorded else (attempt.message, attempt.recipient, attempt.receiver.queue)
    if ledger.hold_delivery(
        attempt.id, held.reason, held.seconds, unrecorded=unrecorded, still_applies=held.still_applies
    ):
        attempt.number = 0
        attempt.tell("held", SignalBusError(held.reason), held.seconds)
    elif not (redelivered and settle_redelivered(attempt)):
        raise Dropped


def _run_claimed(attempt: Attempt, *, redelivered: bool = False) -> None:
    """Claim the delivery, then run it, so that one that ends its worker has a limited number of attempts."""
    lease = CLAIM_LEASE if attempt.receiver.atomic else LEASE
    alias = ledger.using()
    most = attempt.receiver.retry.max_attempts
    note = WORKER_LOST if redelivered else ""
    taken = ledger.claim(attempt.id, worker=worker_name(), lease=lease, most=most, note=note, using=alias)
    if taken is None:
        if redelivered and settle_redelivered(attempt):
            return
        raise Dropped
    attempt.count(taken, claimed=True)
    if attempt.is_spent:
        end_spent(attempt)
        return
    attempt.tell("claimed")
    contextvars.copy_context().run(_run, attempt)


def _run(attempt: Attempt) -> None:
    """Run an attempt, and record its outcome unless it succeeded."""
    run = Run(attempt)
    started = time.monotonic()
    try:
        error = _attempt(run)
    finally:
        end_changed_sessions()
    # A time limit may have interrupted a query; a short run without one needs no check of its connections.
    long = attempt.receiver.timeout is not None or time.monotonic() - started > BRIEF
    if error is not None or long or left_open():
        reset_connections()
    if error is None:
        attempt.tell("done")
        return
    raise_if_cut_off(attempt, error)
    end_failed(attempt, error, OwnTransaction(run.took))


def _attempt(run: Run) -> BaseException | None:
    """Run the receiver, and return the error that it raised; an error after its commit is only logged."""
    try:
        _execute(run)
    except (KeyboardInterrupt, NotRun):  # the first is the person's at the terminal, not the receiver's
        raise
    except BaseException as error:  # a receiver's SystemExit or MemoryError is a failed attempt
        if not run.begun:
            if run.attempt.claimed:
                unclaim(run.attempt)
            raise  # the ledger's own: the broker keeps the message
        if not run.committed:
            return error
        text = "signalbus: %s to %s is done, but a callback that it left with on_commit failed"
        logger.exception(text, run.attempt.message.signal, run.attempt.recipient)
    return None


def _execute(run: Run) -> None:
    """Run the receiver; if it is atomic, its effects and its receipt are one commit."""
    attempt, alias = run.attempt, ledger.using()
    connection = connection_to(alias)
    if not attempt.receiver.atomic:
        _execute_bare(run, connection)
        return
    outermost = not connection.in_atomic_block  # else in a test, whose commit never comes
    with transaction.atomic(using=alias):
        if outermost:
            connection.on_commit(run.note_commit, robust=True)  # Django's function would look it up again
        if attempt.recorded:
            _settle_first(attempt, alias)
        former = rollback_error(connection)
        _call_timed(run)
        reject_broken(connection, former)
        if attempt.recorded and run.took >= WORTH_TELLING and not is_changed(connection):
            ledger.tell_runtime(attempt.id, run.took, using=alias)
    if outermost and connection.in_atomic_block:
        raise TransactionManagementError(
            "the receiver left a block of transaction.atomic() open, so that nothing was committed: begin it by `with`"
        )


def _execute_bare(run: Run, connection: BaseDatabaseWrapper) -> None:
    """Run a receiver that asked for no transaction, under the lease of its claim if it has one."""
    attempt = run.attempt
    if not attempt.claimed and not connection.in_atomic_block:
        _call_timed(run)
        return
    borrowed = connection.in_atomic_block  # a test's
    lease = leases.renewed(attempt.id, attempt.number) if attempt.claimed else contextlib.nullcontext()
    former = rollback_error(connection)
    with lease, rolled_back_if_broken(connection):
        _call_timed(run)
        if borrowed:
            reject_broken(connection, former)
        # Before the ledger is told: a role, a search_path or a query that was cut off may keep it from its tables.
        end_changed_sessions()
        reset_connections()
    if attempt.claimed and not ledger.settle(
        attempt.id, ledger.Settlement(state=State.DONE), seen=attempt.number, attempt=attempt.number
    ):
        raise _lost(attempt)


def _call_timed(run: Run) -> None:
    run.begun = True
    began = time.monotonic()
    try:
        call_receiver(run.attempt)
    finally:
        run.took = run.attempt.took = time.monotonic() - began


def _settle_first(attempt: Attempt, alias: str) -> None:
    """Set the delivery to done, by the transaction's first statement, which a rollback undoes."""
    if attempt.claimed:
        if not ledger.confirm(attempt.id, attempt.number, worker=worker_name(), using=alias):
            raise _lost(attempt)
        return
    taken = ledger.take(attempt.id, worker=worker_name(), using=alias)
    if taken is None:
        raise Dropped
    if taken.publications:
        raise Suspect
    attempt.count(taken)
    if attempt.is_spent:
        raise Spent


def _lost(attempt: Attempt) -> LostClaim:
    return LostClaim(f"attempt {attempt.number} of {attempt.message.id} to {attempt.recipient} lost its claim")

"""Run several short deliveries in one transaction: one statement takes their rows, and each has a savepoint.

`grouping` calls it (decision 0026). A receiver that fails is rolled back to its savepoint, and its failure is
recorded in the same commit. If a receiver ends the whole transaction, all others run again, each alone, and no
attempt of theirs is counted.
"""

from __future__ import annotations

import contextvars
import logging
import time
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, transaction
from django.db.transaction import TransactionManagementError

from signalbus.compat.django_internals import callbacks_of, connection_to, rollback_error
from signalbus.exceptions import SignalBusError
from signalbus.ledger import attempts as ledger
from signalbus.receiving.invoking.invocation import call_receiver
from signalbus.receiving.process.database_connections import left_open, reject_broken, reset_connections
from signalbus.receiving.process.receiver_runtimes import BRIEF, runtimes
from signalbus.receiving.process.session_state import end_changed_sessions, forget_change
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.running.attempt import WORTH_TELLING
from signalbus.receiving.running.savepoints import Savepoints, Watch, met_a_limit
from signalbus.receiving.settling.outcome import OwnTransaction, end_failed, raise_if_cut_off, settlement_of
from signalbus.transactions import CommitCallback

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from signalbus.ledger.attempts import Settlement, Taken
    from signalbus.receiving.invoking.invocation import Attempt
    from signalbus.receiving.invoking.runner import Outcome
    from signalbus.transport.progress import Progress

logger: logging.Logger = logging.getLogger("signalbus")

# Limits in seconds, by PostgreSQL's names: a receiver that waits longer for a lock, or keeps locks for longer while
# idle, runs alone.
LIMITS = {"lock_timeout": 0.02, "statement_timeout": 0.5, "idle_in_transaction_session_timeout": 0.5}


class MustRunAlone(SignalBusError):  # noqa: N818 - says what happened
    """A receiver executed a statement that is allowed only outside of a group commit."""


class Broken(SignalBusError):  # noqa: N818 - says what happened
    """A receiver has ended the shared transaction, or closed its connection."""


class Callback:
    """A callback that a receiver registered with ``on_commit``: if it fails, the other receivers' are still called.

    Args:
        function: the callback.
        attempt: the attempt that registered it.
        context: the context of its receiver.
    """

    def __init__(self, function: Callable[[], object], attempt: Attempt, context: contextvars.Context) -> None:
        self._function = function
        self._attempt = attempt
        self._context = context
        self.__qualname__ = type(self).__qualname__

    def __call__(self) -> None:
        """Call it after the shared commit."""
        try:
            self._context.run(self._function)
        except KeyboardInterrupt:  # the person's at the terminal
            raise
        except BaseException:  # as of a receiver that runs alone
            text = "signalbus: %s to %s is done, but a callback that it left with on_commit failed"
            logger.exception(text, self._attempt.message.signal, self._attempt.recipient)
        finally:
            end_changed_sessions()


class SharedCommit:
    """Several deliveries, of which none is suspect, in one transaction.

    Args:
        attempts: the deliveries.
        alias: the ledger's.
        text_progress: records which texts of the batch have begun.
    """

    def __init__(self, attempts: list[Attempt], alias: str, text_progress: Progress) -> None:
        self.alone: list[Attempt] = []  # to run alone, after the commit
        self.late: list[Attempt] = []  # not begun when the time was over
        self._attempts = attempts
        self._alias = alias
        self._text_progress = text_progress
        self._connection = connection_to(alias)
        # PostgreSQL ends a transaction over its limits, and other workers may take its rows. SQLite has one writer.
        self._frees_rows = self._connection.vendor == "postgresql"
        self._watch = Watch(together=ledger.takes_several(self._connection))
        self._savepoints = Savepoints(self._watch, self._connection)
        self._former: dict[UUID, str | None] = {}  # the groups of the errors that are still in the rows
        self._to_undo: list[UUID] = []  # taken, whose take is undone at the end of the transaction
        self._failed: list[tuple[UUID, int, Settlement]] = []  # failed, to be recorded at its end
        self._ended: list[tuple[Attempt, Outcome]] = []  # whose events are emitted after the commit
        self._done: list[Attempt] = []
        self._ended_by: tuple[Attempt, BaseException] | None = None
        self._not_begun: list[UUID] = []
        self._committed = self._cut_off = False
        self._taken_at: Any = None  # by the database's clock

    def run(self) -> None:
        """Run the deliveries; those that must still run are in `alone` and `late` afterwards."""
        try:
            watched = self._connection.execute_wrapper(self._watch)
            with transaction.atomic(using=self._alias), watched, self._savepoints:
                transaction.on_commit(self._note_commit, using=self._alias, robust=True)
                self._run_all()
            if self._connection.in_atomic_block:
                raise Broken("a receiver has left a block of atomic() open, so that nothing was committed")
        except (DatabaseError, Broken) as error:
            if self._committed or self._cut_off:
                raise
            self._dissolve(error)
            return
        reset_connections()  # of what callbacks did as well
        for attempt in self._done:
            attempt.tell("done")
        for attempt, outcome in self._ended:
            attempt.tell(outcome.kind, outcome.error, outcome.delay)

    def _note_commit(self) -> None:
        self._committed = True

    def _run_all(self) -> None:
        ids = [attempt.id for attempt in self._attempts]
        most = min(attempt.receiver.retry.max_attempts for attempt in self._attempts)
        taken, self._taken_at = ledger.take_together(
            ids, worker=worker_name(), limits=LIMITS, most=most, using=self._alias
        )
        self._former = {delivery: found.group for delivery, found in taken.items() if found.group is not None}
        self._share(*self._attempts)
        deadline = time.monotonic() + BRIEF
        self._not_begun = list(taken)
        for attempt in self._attempts:
            found = taken.get(attempt.id)
            if found is None:  # suspect, or with another: a look at it alone tells
                self.alone.append(attempt)
            elif len(self._not_begun) < len(taken) and time.monotonic() > deadline:
                self.late.append(attempt)
            else:
                self._text_progress.resume(attempt.text)
                if attempt.recipient_progress is not None:
                    attempt.recipient_progress.resume(attempt.place)
                if not self._run_one(attempt, found):
                    deadline = 0.0  # what this one waited for may wait for what the others have locked
                self._share(attempt)
        self._savepoints.finish()
        if self._failed:
            ledger.settle_taken(self._failed, former=self._former, using=self._alias)
        if self._former:
            self._clear_errors()
        to_undo = [*self._to_undo, *(attempt.id for attempt in self.late)]
        if to_undo:
            self._undo_take(to_undo)

    def _clear_errors(self) -> None:
        succeeded = [attempt.id for attempt in self._done if attempt.id in self._former]
        if succeeded:
            ledger.clear_errors(succeeded, using=self._alias)

    def _share(self, *attempts: Attempt) -> None:
        if self._frees_rows:
            self._text_progress.share(*(attempt.text for attempt in attempts))
            for attempt in attempts:
                if attempt.recipient_progress is not None:
                    attempt.recipient_progress.share(attempt.place)

    def _undo_take(self, deliveries: list[UUID]) -> None:
        ledger.undo_take(deliveries, worker=worker_name(), until=self._taken_at, using=self._alias)

    def _run_one(self, attempt: Attempt, taken: Taken) -> bool:
        """Run a receiver within its savepoint; return whether the others may run in this transaction."""
        attempt.count(taken)
        context = contextvars.copy_context()
        self._watch.must_run_alone = False
        self._savepoints.begin()
        self._not_begun.remove(attempt.id)
        former = rollback_error(self._connection)
        began = time.monotonic()
        try:
            context.run(call_receiver, attempt)
            reject_broken(self._connection, former, begun=True)
            if self._watch.must_run_alone:
                raise MustRunAlone
            self._savepoints.release()
        except KeyboardInterrupt:  # the person's at the terminal
            raise
        except BaseException as error:  # noqa: BLE001 - a receiver's SystemExit or MemoryError is a failed attempt
            self._savepoints.roll_back(error)
            attempt.took = time.monotonic() - began
            forget_change(self._connection)  # which `Watch` has prevented
            end_changed_sessions(but=self._connection)
            return self._fail(attempt, error)
        took = attempt.took = time.monotonic() - began
        end_changed_sessions(but=self._connection)
        if took >= WORTH_TELLING:
            ledger.tell_runtime(attempt.id, took, using=self._alias)
        if took > BRIEF or left_open(but=self._connection):
            reset_connections(but=self._alias)
        self._guard_callbacks(attempt, context)
        self._done.append(attempt)
        return True

    def _fail(self, attempt: Attempt, error: BaseException) -> bool:
        self._cut_off = True  # until it is known that it was not
        raise_if_cut_off(attempt, error)
        self._cut_off = False
        must_run_alone = self._watch.must_run_alone or met_a_limit(error)
        if must_run_alone:
            runtimes.keep_alone(attempt.receiver.id)
        try:
            reject_broken(self._connection, begun=True)
        except TransactionManagementError:
            self._ended_by = None if must_run_alone else (attempt, error)
            raise Broken(f"{attempt.recipient} ended the transaction, or its connection") from error
        reset_connections(but=self._alias)
        if must_run_alone:
            self.undo(attempt, error)
        else:
            end_failed(attempt, error, self)
        return not must_run_alone

    def undo(self, attempt: Attempt, error: BaseException) -> None:  # noqa: ARG002 - it comes again
        """Do not count the attempt here: the delivery runs alone after the commit, and is parked then if it must be."""
        self._to_undo.append(attempt.id)
        self.alone.append(attempt)

    def settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Record the outcome at the end of the transaction, and emit its event after the commit."""
        self._failed.append((attempt.id, attempt.number, settlement_of(attempt, outcome, attempt.took)))
        self._ended.append((attempt, outcome))

    def _guard_callbacks(self, attempt: Attempt, context: contextvars.Context) -> None:
        entries = callbacks_of(self._connection)
        for index, (savepoints, callback, robust) in enumerate(entries):
            if not isinstance(callback, (CommitCallback, Callback)) and callback != self._note_commit:
                entries[index] = (savepoints, Callback(callback, attempt, context), robust)

    def _dissolve(self, error: BaseException) -> None:
        """Let each delivery run alone after the transaction is lost; only the receiver that ended it has failed."""
        logger.warning(
            "signalbus: %d deliveries could not share a commit, and run one by one: %s", len(self._attempts), error
        )
        reset_connections()
        if self._not_begun:  # nothing, unless a receiver has committed behind Django's back
            self._undo_take(self._not_begun)
        ended_by = self._ended_by and self._ended_by[0].id
        self.late = []
        self.alone = [attempt for attempt in self._attempts if attempt.id != ended_by]
        if self._ended_by is not None:
            attempt, failure = self._ended_by
            end_failed(attempt, failure, OwnTransaction())

"""One commit that several deliveries share."""

from __future__ import annotations

import contextvars
import logging
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, connections, transaction
from django.db.transaction import TransactionManagementError

from signalbus.compat.django_internals import callbacks_of, rollback_error
from signalbus.exceptions import SignalBusError
from signalbus.ledger import attempts as ledger
from signalbus.receiving.process.database_connections import left_open, mend_connections, reject_broken
from signalbus.receiving.process.interruption import was_cut_off
from signalbus.receiving.process.session_state import (
    MOST_REMEMBERED,
    end_changed_sessions,
    forget_change,
    leaves_traces,
    text_of,
)
from signalbus.receiving.running.attempt import (
    WORTH_TELLING,
    conclude_attempt,
    give_up,
    settlement_of,
    write_down,
)
from signalbus.receiving.running.invocation import NotKnownHere, call_receiver
from signalbus.receiving.running.receiver_runtimes import BRIEF, pace
from signalbus.receiving.running.reporting import worker_name
from signalbus.transactions import Hold

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.ledger.attempts import Settlement, Taken
    from signalbus.receiving.running.invocation import Attempt
    from signalbus.receiving.running.runner import Outcome
    from signalbus.transport.progress import Progress

logger: logging.Logger = logging.getLogger("signalbus")

# In seconds, by PostgreSQL's names: who would wait longer for another's lock, or keep the others' locks for longer with
# nothing done, runs alone.
LIMITS = {"lock_timeout": 0.02, "statement_timeout": 0.5, "idle_in_transaction_session_timeout": 0.5}
# Its codes for a lock that was not to be had, a deadlock, a transaction that another has overtaken, and the last two.
LIMITED = frozenset({"55P03", "40P01", "40001", "57014", "25P03"})
# What ends a transaction, and what holds until its end: a tenant for row-level security that one has set would be the
# next one's as well.
CONCERNS_ALL = re.compile(
    r"(?:^|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)"
    r"|SET\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)|SELECT\s+(?:pg_catalog\.)?set_config"
    r"|DECLARE|CREATE\s+(?:(?:LOCAL|GLOBAL)\s+)?TEMP(?:ORARY)?)\b",
    re.IGNORECASE | re.DOTALL,
)


class Unfit(SignalBusError):  # noqa: N818 - says what happened
    """A receiver has done what only one that runs alone may do, whatever it made of the error."""


class Broken(SignalBusError):  # noqa: N818 - says what happened
    """A receiver has ended the transaction that it shared, or its connection."""


class Watch:
    """Looks at the statements of a shared transaction: which waits for a lock, and which would concern everybody in it.

    Args:
        together: the database takes several statements at once, so that the end of a savepoint of ours can go with the
            beginning of the next one.
    """

    def __init__(self, *, together: bool) -> None:
        self.unfit: bool = False
        self.ours: bool = False  # a savepoint of ours begins or ends
        self._together = together
        self._ended = ""  # what ends the last one, or rolls back to it, not said yet

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Run a statement, as Django's ``execute_wrapper()`` asks for it."""
        if self.ours and self._together:
            if sql.startswith(("RELEASE", "ROLLBACK TO")):
                self._ended += f"{sql}; "
                return None
            sql, self._ended = self._ended + sql, ""
        elif _concerns_all(sql if type(sql) is str else text_of(sql, context["connection"]), context["connection"]):
            self.unfit = True
            raise TransactionManagementError(
                "a transaction that others share is not to be ended, nor is anything set for all of it; alone it may be"
            )
        try:
            return execute(sql, params, many, context)
        except DatabaseError as error:
            self.unfit = self.unfit or met_a_limit(error)
            raise

    def finish(self, connection: BaseDatabaseWrapper) -> None:
        """End the last savepoint of ours. If the transaction is not the one that it began in any more, this tells.

        Args:
            connection: the transaction's.

        Raises:
            DatabaseError: somebody ended that one, and another has begun: what others did may be gone with it.
        """
        if self._ended:
            with connection.cursor() as cursor:
                cursor.execute(self._ended)


def _concerns_all(sql: str, connection: BaseDatabaseWrapper) -> bool:
    return _ends_transaction(sql) or leaves_traces(sql, connection)


def _ends_transaction(sql: str) -> bool:
    return _known_end(sql) if len(sql) <= MOST_REMEMBERED else CONCERNS_ALL.search(sql) is not None


@lru_cache(maxsize=1000)
def _known_end(sql: str) -> bool:
    return CONCERNS_ALL.search(sql) is not None


class Savepoint:
    """What one delivery does in a shared transaction: Django's own block, whose statements the watch knows for ours.

    It has begun once it is made: what that raises is nobody's failure.

    Args:
        watch: the transaction's.
        alias: of its database.
    """

    def __init__(self, watch: Watch, alias: str) -> None:
        self._watch = watch
        self._block = transaction.atomic(using=alias)
        watch.ours = True
        try:
            self._block.__enter__()
        finally:
            watch.ours = False

    def __enter__(self) -> None:
        """Go on."""

    def __exit__(self, *error: Any) -> None:
        self._watch.ours = True
        try:
            self._block.__exit__(*error)
        finally:
            self._watch.ours = False


def met_a_limit(error: BaseException) -> bool:
    """Whether an error says that another transaction was in the way, or that the others have waited long enough."""
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg 3, and 2
    return isinstance(error, DatabaseError) and code in LIMITED


class Callback:
    """What a receiver left with ``on_commit``: if it fails, those of the others are called all the same.

    Args:
        function: the callback.
        attempt: whose it is.
        context: the receiver's.
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
        told: where it is noted who has begun.
    """

    def __init__(self, attempts: list[Attempt], alias: str, told: Progress) -> None:
        self.alone: list[Attempt] = []  # are to run by themselves
        self.late: list[Attempt] = []  # the time was over before they began
        self._attempts = attempts
        self._alias = alias
        self._told = told
        self._connection = connections[alias]
        # There, who keeps the others waiting loses the transaction: others may run them. SQLite has one writer anyway.
        self._frees_rows = self._connection.vendor == "postgresql"
        self._watch = Watch(together=ledger.takes_several(self._connection))
        self._back: list[UUID] = []  # taken, and to be given back
        self._failed: list[tuple[UUID, Settlement]] = []  # to be written down before it
        self._ended: list[tuple[Attempt, Outcome]] = []  # to be told after the commit
        self._done: list[Attempt] = []
        self._culprit: tuple[Attempt, BaseException] | None = None
        self._not_begun: list[UUID] = []
        self._committed = self._cut_off = False
        self._taken_at: Any = None  # by the database's clock

    def run(self) -> None:
        """Run them, and tell of those that failed; who is to run again stands in `alone` and `late`."""
        try:
            with transaction.atomic(using=self._alias), self._connection.execute_wrapper(self._watch):
                transaction.on_commit(self._note_commit, using=self._alias, robust=True)
                self._run_all()
        except (DatabaseError, Broken) as error:
            if self._committed or self._cut_off:
                raise
            self._dissolve(error)
            return
        mend_connections()  # of what callbacks did as well
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
                self._told.resume(attempt.text)
                if attempt.told is not None:
                    attempt.told.resume(attempt.place)
                if not self._run_one(attempt, found):
                    deadline = 0.0  # what this one waited for may wait for what the others have locked
                self._share(attempt)
        self._watch.finish(self._connection)
        if self._failed:
            ledger.settle_taken(self._failed, using=self._alias)
        back = [*self._back, *(attempt.id for attempt in self.late)]
        if back:
            self._take_back(back)

    def _share(self, *attempts: Attempt) -> None:
        if self._frees_rows:
            self._told.share(*(attempt.text for attempt in attempts))
            for attempt in attempts:
                if attempt.told is not None:
                    attempt.told.share(attempt.place)

    def _take_back(self, deliveries: list[UUID]) -> None:
        ledger.take_back(deliveries, worker=worker_name(), until=self._taken_at, using=self._alias)

    def _run_one(self, attempt: Attempt, taken: Taken) -> bool:
        """Run a receiver up to its savepoint's end; return whether the others may go on."""
        attempt.count(taken)
        context = contextvars.copy_context()
        self._watch.unfit = False
        savepoint = Savepoint(self._watch, self._alias)
        self._not_begun.remove(attempt.id)
        former = rollback_error(self._connection)
        began = time.monotonic()
        try:
            with savepoint:
                context.run(call_receiver, attempt)
                reject_broken(self._connection, former, begun=True)
                if self._watch.unfit:
                    raise Unfit
        except KeyboardInterrupt:  # the person's at the terminal
            raise
        except BaseException as error:  # noqa: BLE001 - a receiver's SystemExit or MemoryError is a failed attempt
            took = attempt.took = time.monotonic() - began
            forget_change(self._connection)  # which `Watch` has prevented
            end_changed_sessions(but=self._connection)
            return self._fail(attempt, error, took)
        took = attempt.took = time.monotonic() - began
        end_changed_sessions(but=self._connection)
        if took >= WORTH_TELLING:
            ledger.tell_runtime(attempt.id, took, using=self._alias)
        if took > BRIEF or left_open(but=self._alias):
            mend_connections(but=self._alias)
        self._guard_callbacks(attempt, context)
        self._done.append(attempt)
        return True

    def _fail(self, attempt: Attempt, error: BaseException, took: float) -> bool:
        if was_cut_off():
            self._cut_off = True
            give_up(attempt)
            raise error
        unfit = self._watch.unfit or met_a_limit(error)
        if unfit:
            pace.keep_alone(attempt.receiver.id)
        try:
            reject_broken(self._connection, begun=True)
        except TransactionManagementError:
            self._culprit = None if unfit else (attempt, error)
            raise Broken(f"{attempt.recipient} ended the transaction, or its connection") from error
        mend_connections(but=self._alias)
        if unfit or isinstance(error, NotKnownHere):
            self._back.append(attempt.id)
            self.alone.append(attempt)
            return not unfit
        outcome = conclude_attempt(attempt, error)
        self._failed.append((attempt.id, settlement_of(outcome, took)))
        self._ended.append((attempt, outcome))
        return True

    def _guard_callbacks(self, attempt: Attempt, context: contextvars.Context) -> None:
        entries = callbacks_of(self._connection)
        for index, (savepoints, callback, robust) in enumerate(entries):
            if not isinstance(callback, (Hold, Callback)) and callback != self._note_commit:
                entries[index] = (savepoints, Callback(callback, attempt, context), robust)

    def _dissolve(self, error: BaseException) -> None:
        """Let each run by itself, after the transaction is lost; only who ended it has failed."""
        logger.warning(
            "signalbus: %d deliveries could not share a commit, and run one by one: %s", len(self._attempts), error
        )
        mend_connections()
        if self._not_begun:  # nothing, unless a receiver has committed behind Django's back
            self._take_back(self._not_begun)
        culprit = self._culprit and self._culprit[0].id
        self.late = []
        self.alone = [attempt for attempt in self._attempts if attempt.id != culprit]
        if self._culprit is not None:
            attempt, failure = self._culprit
            write_down(attempt, conclude_attempt(attempt, failure))

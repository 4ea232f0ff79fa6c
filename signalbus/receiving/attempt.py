"""One attempt of a delivery: take its row, run the receiver, commit its effects together with its receipt."""

from __future__ import annotations

import contextvars
import logging
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from signalbus import celery, ledger
from signalbus.context import running
from signalbus.exceptions import SignalBusError, UnknownClass
from signalbus.models import State
from signalbus.receiving.ending import is_shutting_down, was_cut_off
from signalbus.receiving.fetching import payload_for
from signalbus.receiving.parking import park
from signalbus.receiving.reporting import announce, context_of
from signalbus.receiving.runner import Outcome, call, conclude
from signalbus.receiving.upkeep import cancel_queries, kept_usable, mend_connections, reject_broken
from signalbus.registry import registry
from signalbus.wire.message import delivery_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.registry import Receiver
    from signalbus.wire.message import Message

logger: logging.Logger = logging.getLogger("signalbus")

BRIEF = 0.05  # seconds: shorter than any time limit
STATES = {"done": State.DONE, "skipped": State.SKIPPED, "failed": State.PENDING, "dead": State.DEAD}


class LostClaim(SignalBusError):  # noqa: N818 - says what happened
    """Somebody else runs the delivery now: what this attempt wrote is rolled back."""


class NotKnownHere(SignalBusError):  # noqa: N818 - says what happened
    """The message names what this worker does not have (yet), as the next release's model."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a delivery.

    Args:
        message: what is delivered.
        receiver: to whom.
        number: 1 for the first.
        since: attempts made before the last retry by hand; the policy counts from there.
        claimed: it has a row in the ledger, and this attempt's number fences it.
    """

    message: Message
    receiver: Receiver
    number: int = 1
    since: int = 0
    claimed: bool = False


def deliver_one(message: Message, recipient: str, receiver: Receiver, *, redelivered: bool) -> None:
    """Claim where there is a row, and run in a context of its own: what a receiver activates ends with it."""
    attempt = Attempt(message, receiver)
    if message.recorded or redelivered:
        lease = celery.lease()
        claim = ledger.claim(delivery_id(message.id, recipient), redelivered=redelivered, lease=lease)
        if claim is None:
            logger.info("signalbus: %s to %s was delivered already", message.id, recipient)
            return
        attempt = Attempt(message, receiver, number=claim[0], since=claim[1], claimed=True)
    contextvars.copy_context().run(_run, attempt, recipient)


def _run(attempt: Attempt, recipient: str) -> None:
    if attempt.number - attempt.since > attempt.receiver.retry.max_attempts:
        lost = SignalBusError(f"its worker was lost in attempt {attempt.number - 1}, the last one")
        _write_down(attempt, recipient, Outcome("dead", lost))
        return
    started = time.monotonic()
    error = running(context_of(attempt.message, recipient, attempt.number), _attempt, attempt, recipient)
    # A time limit may have struck, and the receiver have gone on after it; what was brief is not looked at.
    if error is not None or attempt.receiver.timeout is not None or time.monotonic() - started > BRIEF:
        mend_connections()
    if error is None:
        return
    if was_cut_off():
        _give_up(attempt, recipient)
        raise error
    if isinstance(error, LostClaim):
        logger.warning("signalbus rolled back: %s", error)
    elif isinstance(error, NotKnownHere):
        if not attempt.claimed or _give_back(attempt, recipient):
            park(attempt.message, [recipient], attempt.receiver.queue, str(error))
    else:
        _write_down(attempt, recipient, _conclude(attempt, error))


def _attempt(attempt: Attempt, recipient: str) -> BaseException | None:
    """Run the receiver, and return what it raised; what fails after its commit does not make it run again."""
    committed: list[bool] = []
    try:
        _run_receiver(attempt, recipient, partial(committed.append, True))
    except KeyboardInterrupt:  # the person at the terminal's, not the receiver's
        raise
    except BaseException as error:  # a receiver's SystemExit or MemoryError is a failed attempt
        if not committed:
            return error
        text = "signalbus: %s to %s is done, but a callback that it left with on_commit failed"
        logger.exception(text, attempt.message.signal, recipient)
    return None


def _give_up(attempt: Attempt, recipient: str) -> None:
    """Leave a run that was cut off to the next worker, which gets the message from the broker again."""
    shutdown = is_shutting_down()
    what = (attempt.message.signal, recipient, attempt.number)
    why = "the worker shuts down, which is no attempt" if shutdown else "its process was told to end"
    logger.warning("signalbus: %s to %s was cut off in attempt %s: %s", *what, why)
    if shutdown and attempt.claimed:
        _give_back(attempt, recipient)


def _give_back(attempt: Attempt, recipient: str) -> bool:
    return ledger.give_back(delivery_id(attempt.message.id, recipient), attempt.number, lease=celery.lease())


def _conclude(attempt: Attempt, error: BaseException) -> Outcome:
    return conclude(
        error,
        attempt=attempt.number - attempt.since,
        retry=attempt.receiver.retry,
        on_missing=attempt.receiver.on_missing,
        spread=random.random(),  # noqa: S311 - spreads retries; guards nothing
    )


def _run_receiver(attempt: Attempt, recipient: str, note_commit: Callable[[], None]) -> None:
    """Run the receiver, its rows fetched and its receipt written in its own transaction if it is atomic."""
    receiver = attempt.receiver
    alias = ledger.using()
    connection = connections[alias]
    borrowed = connection.in_atomic_block  # in a test, whose commit never comes
    with transaction.atomic(using=alias) if receiver.atomic else kept_usable(connection):
        if receiver.atomic and not borrowed:
            transaction.on_commit(note_commit, using=alias, robust=True)
        function = receiver.function()
        if function is None:
            raise SignalBusError(f"the receiver {receiver.id} has been garbage-collected: connect it with weak=False")
        arguments = _arguments(receiver, attempt.message)
        try:
            call(function, arguments, is_async=receiver.is_async, timeout=receiver.timeout)
        except BaseException:
            cancel_queries()  # before the transaction's end closes a connection in mid-query
            raise
        if receiver.atomic or borrowed:
            reject_broken(connection)
        if attempt.claimed:
            done = ledger.Settlement(state=State.DONE)
            if not ledger.settle(delivery_id(attempt.message.id, recipient), attempt.number, done):
                raise LostClaim(f"attempt {attempt.number} of {attempt.message.id} to {receiver.id} lost its claim")


def _arguments(receiver: Receiver, message: Message) -> dict[str, Any]:
    """Decode a message into a receiver's arguments, its rows as they are now."""
    try:
        sender, payload = payload_for(receiver, message.payload)
    except UnknownClass as error:
        raise NotKnownHere(str(error)) from error
    return {**payload, "signal": registry.presented(message.signal), "sender": sender}


def _write_down(attempt: Attempt, recipient: str, outcome: Outcome) -> None:
    """Settle an attempt that did not succeed, and tell of it."""
    message = attempt.message
    settlement = ledger.Settlement(
        state=STATES[outcome.kind], error=outcome.reason, traceback=outcome.traceback, delay=outcome.delay
    )
    if attempt.claimed:
        if not ledger.settle(delivery_id(message.id, recipient), attempt.number, settlement):
            # Lost, or settled by a commit whose on_commit callback has failed since.
            text = "signalbus: %s to %s failed after its claim was lost, or was done"
            logger.warning(text, message.id, recipient, exc_info=outcome.error)
            return
    else:
        ledger.keep_settled(message, recipient, attempt.receiver.queue, settlement)
    announce(context_of(message, recipient, attempt.number), outcome)

"""From a queue's texts to receivers that ran, each on its own, and to what is written down about them."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import random
import reprlib
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.cache import caches
from django.db import DataError, connections, transaction
from django.db.transaction import TransactionManagementError

from signalbus import celery, conf, ledger
from signalbus.context import Delivery, running
from signalbus.exceptions import SignalBusError, TextError, UnknownKey, UnknownVersion
from signalbus.models import State
from signalbus.receiving.announcements import delivery_dead, delivery_failed
from signalbus.receiving.fetching import fetch
from signalbus.receiving.runner import Outcome, call, conclude
from signalbus.registry import registry
from signalbus.sending import publisher
from signalbus.wire import codec
from signalbus.wire.message import delivery_id, from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.registry import Receiver
    from signalbus.wire.message import Message

logger = logging.getLogger("signalbus")

# The settings of the caches that were made in this context, and the thread that made them.
_caches: contextvars.ContextVar[object] = contextvars.ContextVar("signalbus_caches", default=None)

PG_IN_ERROR = 3  # psycopg's TransactionStatus.INERROR
STATES = {"done": State.DONE, "skipped": State.SKIPPED, "failed": State.PENDING, "dead": State.DEAD}


class LostClaim(SignalBusError):  # noqa: N818 - says what happened
    """Somebody else runs the delivery now: what this attempt wrote is rolled back."""


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


def deliver(texts: object, *, queue: str | None = None, redelivered: bool = False) -> None:
    """Deliver what one Celery message holds.

    Args:
        texts: a list of signed texts; whoever can write to the broker chose it.
        queue: the queue it came through, or None for the default one.
        redelivered: the broker gave it out before, and its worker was lost or stopped.

    Raises:
        Exception: such as the ledger's DatabaseError; the Celery message must be given back to the broker.
    """
    if not isinstance(texts, list):
        _refuse(texts, "not a list of texts", queue)
        return
    _open_caches()
    deadline = time.monotonic() + conf.get().BATCH_SECONDS
    for index, text in enumerate(texts):
        if index and time.monotonic() > deadline and _gave_back(queue, texts[index:]):
            return
        try:
            _deliver_text(text, queue, deadline, redelivered=redelivered, alone=len(texts) == 1)
        except (DataError, UnicodeError) as error:
            # The database's word on this text, not on its own state: to try again would be to try for ever.
            _refuse(text, f"the ledger cannot hold it: {error}", queue)


def _open_caches() -> None:
    """Make the caches' clients in this context, where each receiver's own one finds them, and where they are closed.

    Django keeps them in a context variable: made in a receiver's context, they would be made anew for each run.
    """
    here = (caches.settings, threading.get_ident())  # a copied context may be another thread's
    if _caches.get() == here:
        return
    for alias in caches:
        # A backend that cannot be imported, or made without a library that is missing: who asks for it gets the error.
        with contextlib.suppress(Exception):
            caches[alias]
    _caches.set(here)


def _deliver_text(text: object, queue: str | None, deadline: float, *, redelivered: bool, alone: bool) -> None:
    message = _open(text, queue)
    if message is not None:
        _deliver_message(message, queue, deadline, redelivered=redelivered, alone=alone)


def _gave_back(queue: str | None, texts: Sequence[Any]) -> bool:
    """Return the rest of a batch to the queue, so that one batch does not keep a worker from everybody else."""
    for text in texts:
        if not isinstance(text, str):
            _open(text, queue)  # refuses it
    try:
        publisher.publish_texts(queue, [text for text in texts if isinstance(text, str)])
    except publisher.PublishError as error:
        logger.warning("signalbus goes on with a batch past its time, because it cannot be given back: %s", error)
        return False
    return True


def _open(text: object, queue: str | None) -> Message | None:
    """Verify and parse a text; what cannot be opened is kept as the design says, and never run."""
    if isinstance(text, str) and "\x00" in text:
        # No signer writes one, and PostgreSQL could not keep it, whoever's key it names.
        _refuse(text, "Garbage: it holds a NUL character", queue)
        return None
    try:
        return from_body(conf.signer().verify(text))
    except UnknownKey as error:
        logger.warning("signalbus parks a text: %s", error)
        ledger.park_text(str(text), sealed=True, queue=queue, reason=str(error))
    except UnknownVersion as error:
        logger.warning("signalbus parks a text: %s", error)
        ledger.park_text(error.body, sealed=False, queue=queue, reason=str(error))
    except TextError as error:
        _refuse(text, f"{type(error).__name__}: {error}", queue)
    return None


def _refuse(text: object, reason: str, queue: str | None) -> None:
    # Not repr(): nested deep enough, its end is a RecursionError.
    shown = text if isinstance(text, str) else reprlib.repr(text)
    # The text is somebody else's: its repr keeps its line breaks from forging lines of a log.
    logger.error("signalbus refused a text (%s): %r", reason, shown[:200])
    ledger.refuse(shown, reason, queue)


def _deliver_message(message: Message, queue: str | None, deadline: float, *, redelivered: bool, alone: bool) -> None:
    signal = registry.signal(message.signal)
    if signal is None:
        _park(message, message.recipients or ("",), queue, f"this worker does not know the signal {message.signal!r}")
        return
    if message.recipients is None:
        _deliver_open(message, signal.matching(message.sender), queue, redelivered=redelivered)
        return
    found = {recipient: signal.find(recipient, message.sender) for recipient in message.recipients}
    unknown = [recipient for recipient, receiver in found.items() if receiver is None]
    if unknown:
        _park(
            message, unknown, queue, f"this worker does not know the receiver {', '.join(unknown)} of {message.signal}"
        )
    known = {recipient: receiver for recipient, receiver in found.items() if receiver is not None}
    if redelivered and not (alone and len(known) == 1):
        _set_apart(message, list(known), queue)
        return
    if redelivered and not message.recorded:
        for recipient, receiver in known.items():
            ledger.keep(message, [recipient], receiver.queue)
    for index, (recipient, receiver) in enumerate(known.items()):
        rest = list(known)[index:]
        if index and time.monotonic() > deadline and _gave_back_rest(message, rest, queue):
            return
        _deliver_one(message, recipient, receiver, redelivered=redelivered)


def _gave_back_rest(message: Message, recipients: Sequence[str], queue: str | None) -> bool:
    """Return a message to the queue for those it has not reached: a slow receiver must not use up another's time."""
    return _gave_back(queue, [publisher.sign(to_body(replace(message, recipients=tuple(recipients))))])


def _park(message: Message, receivers: Sequence[str], queue: str | None, reason: str) -> None:
    logger.warning("signalbus parks message %s: %s", message.id, reason)
    for receiver in ledger.park(message, receivers, queue, reason):
        _announce(_context_of(message, receiver, 0), Outcome("dead", SignalBusError(f"given up: {reason}")))


def _set_apart(message: Message, recipients: Sequence[str], queue: str | None) -> None:
    """Keep deliveries whose worker was lost in company, so that the one that ended it comes again alone."""
    if message.recorded:
        ledger.release([delivery_id(message.id, recipient) for recipient in recipients])
    else:
        ledger.keep(message, recipients, queue)


def _deliver_open(message: Message, receivers: Sequence[Receiver], queue: str | None, *, redelivered: bool) -> None:
    """Deliver a message whose sender did not know the receivers: each through its own queue, from here on by name."""
    ids = [receiver.id for receiver in receivers]
    if message.recorded or redelivered:
        ledger.expand(message, [(receiver.id, receiver.queue or queue) for receiver in receivers])
        return
    here = [receiver for receiver in receivers if receiver.queue in {None, queue}]
    for receiver in receivers:
        if receiver not in here:
            part = replace(message, recipients=(receiver.id,))
            try:
                publisher.publish(receiver.queue, [to_body(part)])
            except publisher.PublishError as error:
                ledger.keep_unpublished([(part, receiver.queue)], str(error))
    logger.debug("signalbus delivers open message %s to %s", message.id, ids)
    for receiver in here:
        _deliver_one(replace(message, recipients=(receiver.id,)), receiver.id, receiver, redelivered=False)


def _deliver_one(message: Message, recipient: str, receiver: Receiver, *, redelivered: bool) -> None:
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


def _context_of(message: Message, recipient: str, attempt: int) -> Delivery:
    return Delivery(
        message_id=message.id,
        signal=message.signal,
        receiver=recipient,
        attempt=attempt,
        root=message.root,
        parent=message.parent,
        path=message.path,
    )


def _run(attempt: Attempt, recipient: str) -> None:
    if attempt.number - attempt.since > attempt.receiver.retry.max_attempts:
        lost = SignalBusError(f"its worker was lost in attempt {attempt.number - 1}, the last one")
        _write_down(attempt, recipient, Outcome("dead", lost))
        return
    try:
        running(_context_of(attempt.message, recipient, attempt.number), _attempt, attempt, recipient)
    except KeyboardInterrupt:  # the person at the terminal's, not the receiver's
        raise
    except LostClaim as error:
        logger.warning("signalbus rolled back: %s", error)
    except BaseException as error:  # noqa: BLE001 - a receiver's SystemExit or MemoryError is a failed attempt
        receiver = attempt.receiver
        outcome = conclude(
            error,
            attempt=attempt.number - attempt.since,
            retry=receiver.retry,
            on_missing=receiver.on_missing,
            spread=random.random(),  # noqa: S311 - spreads retries; guards nothing
        )
        _mend_connections()
        _write_down(attempt, recipient, outcome)


def _attempt(attempt: Attempt, recipient: str) -> None:
    """Run the receiver; what fails after its commit does not make it run again."""
    committed: list[bool] = []
    try:
        _run_receiver(attempt, recipient, partial(committed.append, True))
    except BaseException as error:
        if not committed or isinstance(error, KeyboardInterrupt):
            raise
        text = "signalbus: %s to %s is done, but a callback that it left with on_commit failed"
        logger.exception(text, attempt.message.signal, recipient)


def _run_receiver(attempt: Attempt, recipient: str, note_commit: Callable[[], None]) -> None:
    """Run the receiver, its rows fetched and its receipt written in its own transaction if it is atomic."""
    receiver = attempt.receiver
    alias = ledger.using()
    outermost = receiver.atomic and not connections[alias].in_atomic_block  # else in a test, whose commit never comes
    with transaction.atomic(using=alias) if receiver.atomic else contextlib.nullcontext():
        if outermost:
            transaction.on_commit(note_commit, using=alias, robust=True)
        function = receiver.function()
        if function is None:
            raise SignalBusError(f"the receiver {receiver.id} has been garbage-collected: connect it with weak=False")
        settings = conf.get()
        sender, payload = codec.decode(attempt.message.payload, fetch, max_depth=settings.MAX_NESTING)
        arguments = {**payload, "signal": registry.signal(attempt.message.signal), "sender": sender}
        call(function, arguments, is_async=receiver.is_async, timeout=receiver.timeout)
        if receiver.atomic:
            _reject_broken(connections[alias])
        if attempt.claimed:
            done = ledger.Settlement(state=State.DONE)
            if not ledger.settle(delivery_id(attempt.message.id, recipient), attempt.number, done):
                raise LostClaim(f"attempt {attempt.number} of {attempt.message.id} to {receiver.id} lost its claim")


def _mend_connections() -> None:
    """Close what the receiver left dead, or in no state to write anything down; leave alone what is well."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]:
            connection.close_if_unusable_or_obsolete()


def _reject_broken(connection: BaseDatabaseWrapper) -> None:
    """Fail where a commit would quietly roll back: the receiver caught a database error inside its transaction."""
    broken = connection.needs_rollback or connection.connection is None
    if connection.vendor == "postgresql" and not broken:
        broken = connection.connection.info.transaction_status == PG_IN_ERROR
    if broken:
        raise TransactionManagementError(
            "the receiver went on after a database error in its transaction, which cannot be committed any more: put "
            "what may fail into an atomic() of its own, inside the try"
        )


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
    _announce(_context_of(message, recipient, attempt.number), outcome)


def _announce(delivery: Delivery, outcome: Outcome) -> None:
    """Log an outcome once, and send it to whoever listens."""
    what = (delivery.signal, delivery.receiver, delivery.id, delivery.attempt)
    announcement: Callable[..., object]
    if outcome.kind == "skipped":
        logger.info("signalbus: %s to %s skipped (delivery %s, attempt %s): %s", *what, outcome.reason)
        return
    if outcome.kind == "dead":
        announcement = delivery_dead.send_robust
        logger.error("signalbus: %s to %s is dead (delivery %s, attempt %s)", *what, exc_info=outcome.error)
    else:
        announcement = delivery_failed.send_robust
        text = "signalbus: %s to %s failed (delivery %s, attempt %s), again in %.1f s"
        logger.error(text, *what, outcome.delay, exc_info=outcome.error)
    announcement(sender=delivery.signal, delivery=delivery, error=outcome.error)

"""Rehearse a delivery: run its receiver in transactions that are rolled back, and tell what it would have done.

Called by the command ``rehearse``, in a process of its own: connections by sockets and Django's mail are replaced for
the whole process meanwhile. The admin calls it in a thread of a web process, where they are replaced for that thread
alone. No delivery is changed, no event is emitted, and no attempt is counted; the audit log gets a line.
"""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDoneInTime
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from django.db import connections, transaction

from signalbus.compat.django_internals import callbacks_of
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.receiving.invoking.invocation import Attempt, invoke
from signalbus.receiving.invoking.runner import describe
from signalbus.receiving.invoking.tracebacks import format_error
from signalbus.receiving.process.database_connections import reset_connections
from signalbus.receiving.process.session_state import end_changed_sessions
from signalbus.registration.registry import registry
from signalbus.services.actors import OPERATE, VIEW_PAYLOAD
from signalbus.services.audit_log import write_log
from signalbus.services.changes.rehearsal_captures import (
    Rehearsal,
    blocked_sockets,
    captured_effects,
    statement_recorder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from signalbus.models import Delivery
    from signalbus.services.actors import Actor
    from signalbus.services.queries.lookup import FoundMessage

# What neither a rollback nor this module takes back.
LASTING: Final = (
    "what it wrote to files, caches in memory and tables without transactions",
    "programs and threads that it started",
    "connections by sockets that were open before, and libraries that open theirs outside of Python",
    "numbers that it drew from sequences",
)
PATIENCE: Final = 20.0  # seconds that a web request waits


_one_at_a_time: Final = threading.Lock()  # what is replaced belongs to the whole process


def rehearse(found: FoundMessage, delivery: Delivery, *, actor: Actor, is_alone: bool = True) -> Rehearsal:
    """Run the receiver of a delivery, and roll everything back.

    Args:
        found: the delivery's message.
        delivery: one of its deliveries.
        actor: who asks for it.
        is_alone: the process does nothing else, so that threads of the receiver belong to the rehearsal too.

    Returns:
        What the receiver would have done.

    Raises:
        ConfigurationError: it cannot be run here: its text cannot be read, the receiver is not connected, or this
            process rehearses another delivery.
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    actor.require(VIEW_PAYLOAD)  # what a receiver writes and sends shows what it was sent
    attempt = _attempt(found, delivery)
    if not _one_at_a_time.acquire(blocking=False):
        raise ConfigurationError("This process rehearses another delivery: try again when that is over.")
    try:
        with transaction.atomic(using=ledger.using()):
            write_log(actor, "rehearse", {"delivery": str(delivery.pk)})
        return _rehearse(attempt, is_alone=is_alone)
    finally:
        _one_at_a_time.release()


def rehearse_beside_others(found: FoundMessage, delivery: Delivery, *, actor: Actor) -> Rehearsal | None:
    """Rehearse a delivery in a thread of a process that does other work: with connections and a context of its own.

    Args:
        found: the delivery's message.
        delivery: one of its deliveries.
        actor: who asks for it.

    Returns:
        What the receiver would have done; None if it runs longer than 20 seconds. Then the thread goes on, and rolls
        back at its end.

    Raises:
        ConfigurationError: as for `rehearse`.
        PermissionDenied: the actor must not.
    """
    future: Future[Rehearsal] = Future()

    def run() -> None:
        try:
            future.set_result(rehearse(found, delivery, actor=actor, is_alone=False))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is waited for
            future.set_exception(error)
        finally:
            connections.close_all()

    threading.Thread(target=run, name="signalbus-rehearsal", daemon=True).start()
    try:
        return future.result(PATIENCE)
    except NotDoneInTime:
        if future.done():  # it is the error of the rehearsal
            raise
        return None


def _rehearse(attempt: Attempt, *, is_alone: bool) -> Rehearsal:
    rehearsal = Rehearsal(attempt.receiver.place, attempt.number)
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(captured_effects(rehearsal, is_alone=is_alone))
        for connection in connections.all():
            stack.enter_context(_rolled_back(connection.alias))
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(statement_recorder(connection.alias, rehearsal)))
        stack.enter_context(blocked_sockets(rehearsal, is_alone=is_alone))
        before = {id(callback) for callback in _callbacks()}
        try:
            contextvars.copy_context().run(invoke, attempt)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a receiver raises is the result, SystemExit too
            rehearsal.error, rehearsal.traceback = describe(error), format_error(error, error.__traceback__)
        rehearsal.seconds = time.monotonic() - began
        rehearsal.callbacks += [_name(callback) for callback in _callbacks() if id(callback) not in before]
    end_changed_sessions()
    reset_connections()
    return rehearsal


def _attempt(found: FoundMessage, delivery: Delivery) -> Attempt:
    if found.message is None or not delivery.receiver:
        raise ConfigurationError(
            f"{delivery.pk} cannot be rehearsed: its text was not verified, or this version cannot read it."
        )
    signal = registry.signal(found.message.signal)
    receiver = None if signal is None else signal.find(delivery.receiver, found.message.sender)
    if receiver is None:
        raise ConfigurationError(
            f"{delivery.receiver} is not connected to {found.message.signal} in this process: "
            f"`manage.py signalbus explain {found.message.signal}` shows its receivers."
        )
    return Attempt(found.message, delivery.receiver, receiver, number=delivery.attempts + 1)


@contextmanager
def _rolled_back(alias: str) -> Iterator[None]:
    with transaction.atomic(using=alias):
        yield
        transaction.set_rollback(True, using=alias)


def _callbacks() -> Iterator[Callable[[], object]]:
    for connection in connections.all(initialized_only=True):
        for _, callback, _ in callbacks_of(connection):
            yield callback


def _name(callback: Callable[[], object]) -> str:
    return getattr(callback, "__qualname__", None) or repr(callback)

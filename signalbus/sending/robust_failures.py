"""Record a failed ``send_robust()``: an error in the log, and dead deliveries in the ledger (decision 0017).

`send_operation` calls it; the rows are written by `ledger/sends/unsendable`.
"""

from __future__ import annotations

import logging
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING

from signalbus import transactions
from signalbus.context import CurrentDelivery, current
from signalbus.events import Event, tell
from signalbus.exceptions import MissingTables
from signalbus.ledger import sends as ledger
from signalbus.sending import event_loop_guard, outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

logger: logging.Logger = logging.getLogger("signalbus")

_telling: ContextVar[bool] = ContextVar("signalbus_telling_unsendable", default=False)


def record_failure(signal: str, recipients: Sequence[tuple[str, str | None]], error: Exception) -> None:
    """Log and record a message that could not be sent. Never raise, and never break the sender's transaction.

    The dead deliveries are part of the sender's transaction, as the message would have been.

    Args:
        signal: the signal's name.
        recipients: the ids of its receivers in workers, with their queues; none for an open signal.
        error: the exception.
    """
    names = ", ".join(receiver for receiver, _ in recipients) or "whoever listens"
    logger.error("signalbus could not send %s to %s: %s", signal, names, error, exc_info=error, stack_info=True)
    if outbox.diversion() is not None:  # a test's: nothing leaves it
        return
    if isinstance(error, MissingTables):  # they would hold the dead deliveries too
        return

    def write() -> None:
        try:
            trace = "".join(traceback.format_exception(error))
            message = ledger.record_unsendable(signal, recipients or [("", None)], error, trace)
        except Exception:  # the robust forms never raise: what could be written nowhere must at least be named
            logger.critical("signalbus LOST what it could not send: %s to %s", signal, names, exc_info=True)
        else:
            _tell_after_commit([_dead(message, signal, receiver, error) for receiver, _ in recipients or [("", None)]])

    _with_the_transaction(write)


def _with_the_transaction(write: Callable[[], None]) -> None:
    """Call a function in the sender's transaction if it is the ledger's, else after its commit, else at once."""
    if event_loop_guard.forbid_databases():
        event_loop_guard.call_away(write)
        return
    deciders = transactions.deciding()
    if deciders and deciders[0].alias != ledger.using():
        deciders[0].on_commit(write, robust=True)
    else:
        write()


def _dead(message: UUID, signal: str, receiver: str, error: Exception) -> Event:
    """Return the event of a dead delivery, of the lineage that the message would have had."""
    parent = current()
    delivery = CurrentDelivery(
        message_id=message,
        signal=signal,
        receiver=receiver,
        attempt=0,
        root=message if parent is None else parent.root,
        parent=None if parent is None else parent.message_id,
        path=() if parent is None else (*parent.path, parent.signal),
    )
    return Event("dead", delivery, error)


def _tell_after_commit(dead: Sequence[Event]) -> None:
    """Emit ``dead`` events after the commit, but not for sends of a listener to them that fail: that would not end."""
    if _telling.get():
        return
    deciders = [connection for connection in transactions.deciding() if connection.alias == ledger.using()]
    if not deciders:
        _tell(dead)
    elif deciders[0].in_atomic_block:
        transactions.wait(deciders, dead, _tell)
    # After set_autocommit(False) Django does not announce the commit: the log and the ledger have the failure.


def _tell(dead: Sequence[Event]) -> None:
    token = _telling.set(True)
    try:
        for event in dead:
            tell(event)
    finally:
        _telling.reset(token)

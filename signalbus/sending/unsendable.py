"""What could not be sent, and raised for nobody: an error in the log, and dead deliveries in the ledger."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from signalbus import commits, ledger
from signalbus.exceptions import MissingTables
from signalbus.sending import loops, outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger: logging.Logger = logging.getLogger("signalbus")


def keep(signal: str, recipients: Sequence[tuple[str, str | None]], error: Exception) -> None:
    """Tell of a message that could not be sent. Never raises, and never breaks the sender's transaction.

    The dead deliveries share the fate of the sender's transaction, as the message would have.

    Args:
        signal: the signal's name.
        recipients: the ids of the receivers that it was meant for, with their queues; none for an open signal.
        error: what was raised.
    """
    names = ", ".join(receiver for receiver, _ in recipients) or "whoever listens"
    logger.error("signalbus could not send %s to %s: %s", signal, names, error, exc_info=error, stack_info=True)
    if outbox.diversion() is not None:  # a test's: nothing leaves it
        return
    if isinstance(error, MissingTables):  # they would hold the dead deliveries too
        return

    def write() -> None:
        try:
            reason = f"{type(error).__name__}: {error}"
            trace = "".join(traceback.format_exception(error))
            ledger.keep_unsendable(signal, recipients or [("", None)], reason, trace)
        except Exception:  # the robust forms never raise: what could be written nowhere must at least be named
            logger.critical("signalbus LOST what it could not send: %s to %s", signal, names, exc_info=True)

    _once_it_stands(write)


def _once_it_stands(write: Callable[[], None]) -> None:
    """Write in the sender's transaction if it is the ledger's, after its commit if it is another's; else at once."""
    if loops.forbid_databases():
        loops.call_away(write)
        return
    deciders = commits.deciding()
    if deciders and deciders[0].alias != ledger.using():
        deciders[0].on_commit(write, robust=True)
    else:
        write()

"""Wrap the private parts of Celery that signalbus uses besides its pools; tests in tests/unit/compat notice a change.

`broker/envelope` and `receiving/` use them; those of pools are in `pool_internals`.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from billiard import common
from celery import _state
from celery.app.trace import LOG_RECEIVED, LOG_SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

# The lines that Celery logs when a worker gets a message, and when its task has returned, and the loggers of both. Were
# they others, the lines about our task would name no signal and no receiver, and call a failed delivery "succeeded".
LINE_OF_START: str = LOG_RECEIVED
LINE_OF_END: str = LOG_SUCCESS
logger_of_starts: logging.Logger = logging.getLogger("celery.worker.strategy")
logger_of_ends: logging.Logger = logging.getLogger("celery.app.trace")


def names_queues(app: Celery) -> bool:
    """Return whether a worker was started with the queues to consume (``-Q``).

    Uses ``Queues._consume_from``, which is None until it is set; the public ``consume_from`` does not say. Without it,
    receivers' own queues would be consumed where only others were asked for, or nowhere.
    """
    return app.amqp.queues._consume_from is not None  # type: ignore[attr-defined]  # noqa: SLF001 - as it says


def is_child_exiting() -> bool:
    """Return whether a signal has told this child of a prefork pool to end.

    Uses ``billiard.common._should_have_exited``, which billiard 4.3 reads with a function that 4.2 has not. Without it,
    the SystemExit that billiard raises into a receiver looks like the receiver's own.
    """
    return bool(common._should_have_exited[0])  # type: ignore[attr-defined]  # noqa: SLF001 - see above


def is_worker_terminating() -> bool:
    """Return whether this process is a worker's main one, and in its cold shutdown.

    Uses ``celery.worker.state.should_terminate``: an exit code once it has begun, so 0 counts. Without it, what Celery
    raises into a receiver of the solo pool looks like the receiver's own error.
    """
    state = sys.modules.get("celery.worker.state")  # never imported by a process that is no worker
    code = getattr(state, "should_terminate", None)
    return code is not None and code is not False


def task_here(app: Celery) -> Any | None:
    """Return the worker's task that this thread runs now, or None.

    The public ``current_worker_task`` takes as long to find nothing as it takes to sign a message. Uses
    ``celery._state._task_stack``, whose ``_local`` is empty while no thread runs a task. Were it empty although one
    does, what a task sends would not belong to its tree.

    Args:
        app: the app.
    """
    local: Any = getattr(_state._task_stack, "_local", None)  # type: ignore[attr-defined]  # noqa: SLF001 - see above
    if local is not None and next(iter(local), None) is None:
        return None
    return app.current_worker_task


def listeners(signal: Any, sender: object) -> list[tuple[Callable[..., object], bool]]:
    """Return the listeners of one of Celery's signals, and whether each asked for this sender.

    Without ``receivers`` and their keys, a listener to all tasks could not be distinguished from one to our task,
    and no tracer would be called for a message.

    Args:
        signal: such as ``celery.signals.before_task_publish``.
        sender: the sender that it would be sent from.
    """
    live: list[Any] = signal._live_receivers(sender)  # noqa: SLF001 - the reason of this module
    if not live:
        return []
    everybody = {id(receiver) for receiver in signal._live_receivers(None)}  # noqa: SLF001 - as above
    return [(receiver, id(receiver) not in everybody) for receiver in live]

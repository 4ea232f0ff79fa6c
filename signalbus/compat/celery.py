"""What we use of Celery's private parts: each with what would break, and tests in tests/unit/compat that notice it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from billiard import common
from celery.concurrency.prefork import TaskPool
from celery.worker import state

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery


def names_queues(app: Celery) -> bool:
    """Whether a worker was told what to consume (``-Q``).

    Uses ``Queues._consume_from``, which is None until it is told; the public ``consume_from`` does not say. Without it,
    receivers' own queues would be consumed where only others were asked for, or nowhere.
    """
    return app.amqp.queues._consume_from is not None  # type: ignore[attr-defined]


def is_child_exiting() -> bool:
    """Whether a signal has told this child of a prefork pool to end.

    Uses ``billiard.common._should_have_exited``, which billiard 4.3 reads with a function that 4.2 has not. Without it,
    the SystemExit that billiard raises into a receiver looks like the receiver's own.
    """
    return bool(common._should_have_exited[0])  # type: ignore[attr-defined]


def is_worker_terminating() -> bool:
    """Whether this process is a worker's main one, and in its cold shutdown.

    Uses ``celery.worker.state.should_terminate``: an exit code once it has begun, so 0 counts. Without it, what Celery
    raises into a receiver of the solo pool looks like the receiver's own error.
    """
    state = sys.modules.get("celery.worker.state")  # never imported by a process that is no worker
    code = getattr(state, "should_terminate", None)
    return code is not None and code is not False


def requests() -> set[str]:
    """Return the delivery tags of all that a worker's main process has taken on: what runs, waits or is scheduled.

    Uses ``celery.worker.state.requests``, which Celery keeps for its remote control. Without it, claims of messages
    that Celery has quietly dropped would be held for ever.
    """
    return {request.message.delivery_tag for request in list(state.requests.values())}


def running() -> set[str]:
    """Return the delivery tags of what a worker's pool has begun.

    Uses ``celery.worker.state.active_requests``. Without it, a worker that lost its connection would give back what
    still runs.
    """
    while True:
        try:
            return {request.message.delivery_tag for request in list(state.active_requests)}
        except RuntimeError:  # a thread has begun another one meanwhile
            continue


def is_prefork(pool: Any) -> bool:
    """Whether a pool has children that are told by the event loop what to run."""
    return isinstance(pool, TaskPool) and hasattr(vars(pool)["_pool"], "outbound_buffer")


def wait_until_accepted(pool: Any, seconds: float) -> None:
    """Let the children of a pool say that they have begun what was written to them.

    When a worker stops or loses its connection, Celery forgets what no child has accepted, and takes for not accepted
    what a child has begun while nobody read its word. Such a message runs, and then runs again elsewhere.

    Uses the jobs in ``AsynPool._cache`` (``_write_to``, ``_accepted``) and what reads children's words
    (``handle_result_event``, ``_fileno_to_outq``). Without them, a gentle stop would run a message twice now and then.

    Args:
        pool: a worker's prefork pool.
        seconds: to wait at most; an idle child answers within milliseconds.
    """
    children, deadline = pool._pool, time.monotonic() + seconds
    while any(_is_on_its_way(job) for job in list(children._cache.values())) and time.monotonic() < deadline:
        for fileno in list(children._fileno_to_outq):
            children.handle_result_event(fileno)
        time.sleep(0.001)


def _is_on_its_way(job: Any) -> bool:
    """Whether a job was written to a child that lives and has not answered."""
    child = job._write_to
    return child is not None and not job._accepted and child._is_alive()


def listeners(signal: Any, sender: object) -> list[tuple[Callable[..., object], bool]]:
    """Return who listens to one of Celery's signals, and whether each asked for this sender.

    Without ``receivers`` and their keys, a listener of everything could not be told from one of our task, and no tracer
    would hear of a message.

    Args:
        signal: such as ``celery.signals.before_task_publish``.
        sender: what it would be sent from.
    """
    live: list[Any] = signal._live_receivers(sender)
    if not live:
        return []
    everybody = {id(receiver) for receiver in signal._live_receivers(None)}
    return [(receiver, id(receiver) not in everybody) for receiver in live]

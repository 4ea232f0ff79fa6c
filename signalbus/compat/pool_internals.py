"""Wrap the private parts of Celery's worker and its pools: requests, children and their loss; tests notice a change.

`receiving/worker` and the sweeper use them, in a worker's main process only: the module imports all of Celery's
worker.
"""

from __future__ import annotations

import re
import time
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.concurrency.prefork import TaskPool
from celery.worker import state

ACCEPT_SECONDS = 1.0  # for a child to accept the requests that were written to it
REAP_SECONDS = 0.1  # for the kernel to report the end of a child whose pipe is closed


def requests() -> set[str]:
    """Return the delivery tags of all requests in a worker's main process: running, waiting or scheduled.

    Uses ``celery.worker.state.requests``, which Celery keeps for its remote control. Without it, claims of messages
    that Celery has quietly dropped would be kept for ever. Of requests that share an id, as copies of one message do,
    it keeps one; so the running requests are added.
    """
    return {request.message.delivery_tag for request in list(state.requests.values())} | running()


def running() -> set[str]:
    """Return the delivery tags of the requests that a worker's pool has begun.

    Uses ``celery.worker.state.active_requests``. Without it, a worker that lost its connection would requeue
    messages that still run.
    """
    while True:
        try:
            return {request.message.delivery_tag for request in list(state.active_requests)}
        except RuntimeError:  # a thread has begun another one meanwhile
            continue


def scheduled() -> set[str]:
    """Return the delivery tags of requests with a time to wait for, which are not in the pool yet.

    Uses ``celery.worker.state.scheduled_requests``, which is new in Celery 5.7. Without it, a host's task with a
    countdown that a worker on threads held when its connection was lost comes back after the visibility timeout.
    """
    return {request.message.delivery_tag for request in list(getattr(state, "scheduled_requests", ()))}


def taken() -> int:
    """Return how many requests take a slot of a worker's pool: those that wait for it, and those that run.

    Uses ``celery.worker.state.reserved_requests`` and ``active_requests``. A running request is in both, unless it
    began before a connection was lost: Celery before 5.7 then forgets all reserved requests. Without it, a worker would
    claim messages that it cannot begin.
    """
    reserved = state.reserved_requests
    while True:
        try:
            return len(reserved) + sum(request not in reserved for request in list(state.active_requests))
        except RuntimeError:  # a thread has begun another one meanwhile
            continue


def cause_of_loss(info: Any) -> str | None:
    """Return how a lost child of the pool ended, as "exit code 1" or "signal 9 (SIGKILL)"; None if none was lost.

    Reads the text of billiard's ``WorkerLostError``, which has no attributes. If billiard changes it, the reason is the
    whole text.

    Args:
        info: the failure as Celery's request gets it: billiard's ``ExceptionInfo``.
    """
    error: Any = getattr(info.exception, "exc", info.exception)  # billiard wraps it together with its traceback
    if not isinstance(error, WorkerLostError):
        return None
    found = re.search(r"(?:exitcode|signal) \d+(?: \(\w+\))?", str(error))
    return found[0].replace("exitcode", "exit code") if found else str(error)


def is_prefork(pool: Any) -> bool:
    """Return whether a pool has children to which the event loop writes requests."""
    return isinstance(pool, TaskPool) and hasattr(vars(pool)["_pool"], "outbound_buffer")


def keep_written_requests(pool: Any) -> None:
    """Make a prefork pool keep the requests that were just written to its children, whatever happens to the worker.

    Wraps ``TaskPool.flush``, with which Celery forgets what no child has accepted: when the connection is lost, and as
    the worker stops. What a child has taken out of its pipe meanwhile runs all the same. Celery 5.7 does not read its
    result then, so that it runs again elsewhere; and a child that waits for a reader
    (``billiard.pool.Worker._ensure_messages_consumed``) holds a worker that stops up for 30 seconds.

    Uses ``celery.worker.state.should_stop``, and ``AsynPool._cache`` with ``_write_to`` and ``_accepted`` of its jobs.

    Args:
        pool: the worker's, started; one of another kind is left alone.
    """
    flush = pool.flush
    if flush is None or not is_prefork(pool):
        return

    def flush_the_rest() -> None:
        wait_until_accepted(pool, ACCEPT_SECONDS)
        code: Any = state.should_stop
        if code is not None and code is not False:  # an exit code, so 0 counts
            for job in pool._pool._cache.values():
                job._accepted = job._accepted or job._write_to is not None
        flush()

    pool.flush = flush_the_rest


def reap_at_once(pool: Any) -> None:
    """Make a prefork pool notice the end of a child at once, and not up to five seconds later.

    Wraps ``AsynPool._event_process_exit``, which Celery's event loop calls when the pipe of a child is closed. The
    kernel closes it a moment before it reports the end of the process. So Celery often finds the child alive, and looks
    again only after five seconds: until then nobody takes the child's place, and its delivery is not settled as failed.

    Args:
        pool: the worker's, started, before its event loop runs; one of another kind is left alone.
    """
    if not is_prefork(pool):
        return
    children = pool._pool
    handle_exit = children._event_process_exit

    def handle_exit_once_it_is_known(hub: Any, child: Any) -> None:
        deadline = time.monotonic() + REAP_SECONDS
        while child.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.001)
        handle_exit(hub, child)

    children._event_process_exit = handle_exit_once_it_is_known


def wait_until_accepted(pool: Any, seconds: float) -> None:
    """Wait until the children of a pool have accepted the requests that were written to them.

    When a worker stops or loses its connection, Celery forgets requests that no child has accepted. A request
    that a child has begun counts as not accepted until its word is read; it runs, and then runs again elsewhere.

    A child that has done as many tasks as it may (``worker_max_tasks_per_child``) leaves requests in its pipe, which
    its successor reads, unless Celery notices its end while it still knows the job. So that is done first.

    Uses the jobs in ``AsynPool._cache`` (``_write_to``, ``_accepted``), the reader of children's replies
    (``handle_result_event``, ``_fileno_to_outq``), the end of a write that a full pipe has interrupted (``_writer``,
    ``_active_writers``, ``_flush_writer``), and the handling of a child's end (``maintain_pool``, which makes it
    ``dead``). Without them, a gentle stop would run a message twice now and then.

    Args:
        pool: a worker's prefork pool.
        seconds: to wait at most; an idle child answers within milliseconds.
    """
    children, deadline = pool._pool, time.monotonic() + seconds
    while any(_awaits_acceptance(job) for job in list(children._cache.values())) and time.monotonic() < deadline:
        for job in list(children._cache.values()):
            writer = _awaits_acceptance(job) and job._writer and job._writer()
            if writer in children._active_writers:
                children._flush_writer(job._write_to, writer)
        for fileno in list(children._fileno_to_outq):
            children.handle_result_event(fileno)
        if any(_awaits_acceptance(job) and not job._write_to._is_alive() for job in list(children._cache.values())):
            children.maintain_pool()
        time.sleep(0.001)


def _awaits_acceptance(job: Any) -> bool:
    """Return whether a job was written to a living child that has not accepted it yet."""
    child = job._write_to
    return child is not None and not job._accepted and not child.dead

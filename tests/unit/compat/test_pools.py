"""The private parts of Celery's worker pools that the library uses are unchanged."""

from __future__ import annotations

import inspect
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, TimeLimitExceeded
from billiard.pool import ApplyResult, Pool
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker import state

from signalbus.compat import pool_internals


def job(*, written: bool, alive: bool = True, writer: object = None) -> Any:
    """Return a job of billiard's, in its state before its child answers."""
    made: Any = ApplyResult({}, None)
    made._write_to = SimpleNamespace(_is_alive=lambda: alive, dead=False) if written else None
    made._writer = lambda: writer
    return made


def pool(*jobs: Any) -> Any:
    """Return a prefork pool whose children answer when the test asks them."""
    made: Any = TaskPool(2)

    def answer(fileno: int) -> None:
        job = children._cache[fileno]
        if job._writer() not in children._active_writers and job._write_to and job._write_to._is_alive():
            job._accepted = True

    def maintain() -> None:
        for job in jobs:
            if job._write_to and not job._write_to._is_alive():
                job._write_to.dead = True

    children: Any = SimpleNamespace(
        outbound_buffer=[],
        _active_writers={job._writer() for job in jobs} - {None},
        _flush_writer=lambda child, writer: children._active_writers.discard(writer),
        _cache=dict(enumerate(jobs)),
        _fileno_to_outq=range(len(jobs)),
        handle_result_event=answer,
        maintain_pool=maintain,
    )
    made._pool = children
    return made


class TestWaitUntilAccepted:
    def test_a_childs_acceptance_is_read(self):
        """The acceptance of each written job is read."""
        begun = job(written=True)
        pool_internals.wait_until_accepted(pool(begun), 5)
        assert begun._accepted

    def test_an_interrupted_write_is_completed_first(self):
        """Celery would write the rest later, and the child would run it."""
        begun = job(written=True, writer=object())
        pool_internals.wait_until_accepted(pool(begun), 5)
        assert begun._accepted

    def test_unwritten_jobs_are_not_awaited(self):
        """No child answers for a job that it does not have."""
        waiting = job(written=False)
        pool_internals.wait_until_accepted(pool(waiting), 5)
        assert not waiting._accepted

    def test_celery_handles_a_child_that_has_ended(self):
        """Celery handles the child before it forgets the job; otherwise the child's successor would run the job."""
        lost = job(written=True, alive=False)
        pool_internals.wait_until_accepted(pool(lost), 5)
        assert lost._write_to.dead
        assert not lost._accepted

    def test_celery_has_the_attributes_that_are_read(self):
        """Celery has each attribute under its name."""
        source = inspect.getsource(AsynPool)
        names = "_active_writers _flush_writer _writer outbound_buffer _fileno_to_outq handle_result_event"
        for name in (*names.split(), "_write_to", "_accepted", "_is_alive"):
            assert name in source
        assert "proc.dead = True" in inspect.getsource(AsynPool.on_partial_read)
        assert "self.on_job_process_down(" in inspect.getsource(Pool)
        assert "job.discard()" in inspect.getsource(AsynPool.flush)  # what it is all about


class Child:
    """A child whose pipe is closed, and that the kernel reports as ended only later.

    Args:
        looks: how often it still looks alive.
    """

    def __init__(self, looks: int) -> None:
        self._looks = looks

    @property
    def exitcode(self) -> int | None:
        self._looks -= 1
        return 1 if self._looks < 0 else None


class TestReapAtOnce:
    def told(self, looks: int, *, wrapped: bool) -> list[bool]:
        """Return for each look of Celery at its children whether it found that the child has ended."""
        child, found = Child(looks), list[bool]()
        made, asynpool = pool(), cast("Any", AsynPool)
        children = made._pool
        children.maintain_pool = lambda: found.append(child.exitcode is not None)
        children._untrack_child_process = lambda child, hub: None
        children._event_process_exit = partial(asynpool._event_process_exit, children)
        if wrapped:
            pool_internals.reap_at_once(made)
        children._event_process_exit(None, child)
        return found

    def test_celery_checks_an_ended_child_only_once(self):
        """Celery checks again after five seconds: this defect is the reason for our workaround."""
        assert self.told(3, wrapped=False) == [False]
        assert "self.maintain_pool: 5.0" in inspect.getsource(AsynPool)

    def test_a_child_that_is_about_to_end_is_awaited(self):
        """The delivery of the child is settled as failed at once, and not up to five seconds later."""
        assert self.told(3, wrapped=True) == [True]

    def test_a_child_that_does_not_end_is_not_awaited_for_long(self, monkeypatch):
        """The event loop cannot do anything else meanwhile."""
        monkeypatch.setattr(pool_internals, "REAP_SECONDS", 0.01)
        assert self.told(10**9, wrapped=True) == [False]

    def test_other_pools_are_left_alone(self):
        """Threads have no exit code."""
        pool_internals.reap_at_once(ThreadPool(2))

    def test_celery_finds_our_method_by_its_name(self):
        """Celery hands this method to its event loop, and reads the exit code of a child."""
        assert "self._event_process_exit," in inspect.getsource(AsynPool)
        assert "worker.exitcode" in inspect.getsource(Pool)


def test_only_prefork_has_children():
    """The other pools run a message at once, or in threads."""
    assert pool_internals.is_prefork(pool())
    assert not pool_internals.is_prefork(ThreadPool(2))


class Request:
    """A request with the attributes that Celery gives it."""

    name = "x"

    def __init__(self, tag: str) -> None:
        self.id = tag
        self.message = SimpleNamespace(delivery_tag=tag)


def test_reserved_and_running_requests_are_found():
    """They are found by the tag of their message."""
    waits: Any = Request("waits")
    runs: Any = Request("runs")
    try:
        state.task_reserved(waits)
        state.task_accepted(runs)
        assert pool_internals.requests() == {"waits", "runs"}
        assert pool_internals.running() == {"runs"}
    finally:
        state.reset_state()


@pytest.mark.parametrize(
    ("status", "cause"), [(1, "exit code 1"), (-9, "signal 9 (SIGKILL)"), (-60, "signal 60"), (15, "exit code 15")]
)
def test_how_a_lost_child_ended_is_read_from_billiards_text(status: int, cause: str):
    """The exit code or the signal is read, with and without a signal's name."""
    told: list[Any] = []
    lost = ApplyResult({}, None, error_callback=told.append)

    Pool.mark_as_worker_lost(None, lost, status)  # type: ignore[arg-type]  # it asks for nothing of the pool

    assert pool_internals.cause_of_loss(told[0]) == cause


@pytest.mark.parametrize("error", [TimeLimitExceeded(5), Terminated(15), ValueError("exitcode 1")])
def test_another_end_is_not_a_lost_child(error: Exception):
    """A hard time limit, a revoked task and a task's own error are not read as a lost child."""
    try:
        raise error
    except Exception:  # noqa: BLE001 - whatever it is
        assert pool_internals.cause_of_loss(ExceptionInfo()) is None

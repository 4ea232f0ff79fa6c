"""The private parts of Celery's workers that the library uses are unchanged."""

from __future__ import annotations

import signal
from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import celery
import pytest
from billiard import common
from billiard.pool import CLOSE, RUN, ApplyResult
from celery.concurrency.asynpool import AsynPool
from celery.worker import state
from celery.worker.request import Request
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper
from kombu.message import Message

from signalbus.celery import TASK_NAME, get_app
from signalbus.compat import pool_internals
from signalbus.compat.celery_internals import is_child_exiting, is_worker_terminating
from signalbus.compat.django_internals import close_pools, forget_pools

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestShutdown:
    def test_a_signal_that_ends_a_child_is_noticed(self, monkeypatch):
        """billiard's handler in a child raises SystemExit, and sets a flag."""
        monkeypatch.setattr(common, "_should_have_exited", [False])
        former = signal.getsignal(signal.SIGUSR2)
        assert not is_child_exiting()
        try:
            with pytest.raises(SystemExit):
                common._shutdown_cleanup(signal.SIGUSR2, None)  # type: ignore[attr-defined]
        finally:
            signal.signal(signal.SIGUSR2, former)
        assert is_child_exiting()

    @pytest.mark.parametrize(("value", "terminating"), [(None, False), (False, False), (0, True), (1, True)])
    def test_a_cold_shutdown_is_noticed(self, monkeypatch, value: Any, terminating: bool):
        """Celery sets the exit code there, and reads it in the same way."""
        assert state.should_terminate is None
        monkeypatch.setattr(state, "should_terminate", value)
        assert is_worker_terminating() is terminating


class TestFlush:
    def flushed(self, monkeypatch, should_stop: int | None, *, wrapped: bool) -> tuple[bool, bool]:
        """Return whether a pool keeps a job that was written to a child, and one that was not."""
        monkeypatch.setattr(state, "should_stop", should_stop)
        jobs: dict[int, Any] = {}
        written, waiting = (cast("Any", ApplyResult(jobs, None)) for _ in range(2))
        written._write_to = SimpleNamespace(_is_alive=lambda: True, inqW_fd=3)
        asynpool: Any = SimpleNamespace(
            _cache=jobs,
            _state=RUN if should_stop is None else CLOSE,
            synack=False,
            outbound_buffer=deque(),
            maintain_pool=lambda: None,
            _active_writers=set(),
            _active_writes=set(),
            _busy_workers=set(),
        )
        pool: Any = SimpleNamespace(_pool=asynpool, flush=partial(AsynPool.flush, asynpool))
        monkeypatch.setattr(pool_internals, "is_prefork", lambda pool: True)
        monkeypatch.setattr(pool_internals, "wait_until_accepted", lambda pool, seconds: heard.append(list(jobs)))
        heard: list[list[int]] = []
        if wrapped:
            pool_internals.keep_written_requests(pool)
        pool.flush()
        assert heard == [[written._job, waiting._job]] * wrapped  # before anything is forgotten
        return written._job in jobs, waiting._job in jobs

    @pytest.mark.skipif(celery.VERSION[:2] < (5, 7), reason="Celery 5.6 forgets nothing here.")
    def test_celery_forgets_jobs_that_a_child_has_not_begun(self, monkeypatch):
        """Without this defect the workaround would not be needed."""
        assert self.flushed(monkeypatch, 0, wrapped=False) == (False, False)

    def test_written_jobs_are_awaited_at_a_shutdown(self, monkeypatch):
        """A child has such a job, and will run it."""
        assert self.flushed(monkeypatch, 0, wrapped=True)[0]

    def test_unaccepted_jobs_are_forgotten_when_the_broker_is_lost(self, monkeypatch):
        """The broker will redeliver a job that no child has accepted by then."""
        assert self.flushed(monkeypatch, None, wrapped=True) == (False, False)

    def test_other_pools_are_left_alone(self):
        """A pool of threads has no pipes."""
        pool: Any = SimpleNamespace(flush=None)
        pool_internals.keep_written_requests(pool)
        assert pool.flush is None


class TestRequests:
    def test_celery_gives_the_pool_the_replaced_attributes(self):
        """A child gets the body, its type and the headers; the main process logs the arguments."""
        message = Message(
            body='[["theirs"], {}, {}]',
            content_type="application/json",
            content_encoding="utf-8",
            headers={"task": TASK_NAME, "id": "an id"},
            delivery_info={},
            accept={"application/json"},
        )
        app = get_app()
        request = Request(message, app=app, task=app.tasks[TASK_NAME])
        ours: dict[str, Any] = {
            "args": ["ours"],
            "kwargs": {"kept": False},
            "body": (["ours"], {}, {}),
            "content_type": None,
            "content_encoding": None,
            "request_dict": {"id": "an id"},
        }
        for name, value in ours.items():
            assert getattr(request, name) != value
            assert hasattr(request, f"_{name}")
            setattr(request, f"_{name}", value)
        assert {name: getattr(request, name) for name in ours} == ours

        given: dict[str, Any] = {}
        pool: Any = SimpleNamespace(apply_async=lambda *_args, **options: given.update(options))
        request.execute_using_pool(pool)
        assert given["args"] == (TASK_NAME, "an id", ours["request_dict"], ours["body"], None, None)


class TestPools:
    @pytest.fixture
    def pooled(self, monkeypatch) -> Iterator[Any]:
        """A connection to PostgreSQL with a pool that is not open."""
        monkeypatch.setattr(DatabaseWrapper, "_connection_pools", {})
        options = {"pool": {"min_size": 1, "max_size": 1}, "host": "/nowhere"}
        given = {"ENGINE": "django.db.backends.postgresql", "NAME": "none", "OPTIONS": options}
        connections.settings["pooled"] = connections.configure_settings({"default": given})["default"]
        connection = connections["pooled"]
        assert isinstance(connection, DatabaseWrapper)
        yield connection
        connections.settings.pop("pooled")
        del connections["pooled"]

    def test_open_pools_are_closed(self, pooled):
        """Django makes a new pool for the next connection."""
        pool = pooled.pool
        close_pools()
        assert pool.closed
        assert pooled.pool is not pool

    def test_inherited_pools_are_forgotten(self, pooled):
        """A child makes its own pool, and does not close its parent's."""
        pool = pooled.pool
        pool.open()
        try:
            forget_pools()
            assert not pool.closed
            assert pooled.pool is not pool
        finally:
            pool.close()

    def test_no_pool_is_opened_in_order_to_close_it(self, pooled):
        """If no pool is open, there is none to close or to forget."""
        close_pools()
        forget_pools()
        assert pooled._connection_pools == {}

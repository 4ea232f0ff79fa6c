"""What we use of others' private parts is there, and means what we take it for."""

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
from signalbus.compat import pools
from signalbus.compat.celery import is_child_exiting, is_worker_terminating
from signalbus.compat.django import close_pools, forget_pools

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestEnding:
    def test_a_signal_that_ends_a_child_is_noticed(self, monkeypatch):
        """The handler that billiard installs in children raises SystemExit, and leaves word of it."""
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
        """Celery notes the exit code there, and looks for it in the same way."""
        assert state.should_terminate is None
        monkeypatch.setattr(state, "should_terminate", value)
        assert is_worker_terminating() is terminating


class TestFlush:
    def flushed(self, monkeypatch, should_stop: int | None, *, wrapped: bool) -> tuple[bool, bool]:
        """Return whether a pool remembers a job that was written to a child, and one that was not."""
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
        monkeypatch.setattr(pools, "is_prefork", lambda pool: True)
        monkeypatch.setattr(pools, "wait_until_accepted", lambda pool, seconds: heard.append(list(jobs)))
        heard: list[list[int]] = []
        if wrapped:
            pools.see_to_what_is_written(pool)
        pool.flush()
        assert heard == [[written._job, waiting._job]] * wrapped  # before anything is forgotten
        return written._job in jobs, waiting._job in jobs

    @pytest.mark.skipif(celery.VERSION[:2] < (5, 7), reason="Celery 5.6 forgets nothing here.")
    def test_celery_forgets_what_a_child_has_not_begun(self, monkeypatch):
        """Else there would be nothing to mend."""
        assert self.flushed(monkeypatch, 0, wrapped=False) == (False, False)

    def test_as_the_worker_stops_what_is_written_is_waited_for(self, monkeypatch):
        """A child has it, and will run it."""
        assert self.flushed(monkeypatch, 0, wrapped=True)[0]

    def test_when_the_broker_was_lost_it_is_forgotten(self, monkeypatch):
        """If the child has not said by then that it has begun: it will be given out again."""
        assert self.flushed(monkeypatch, None, wrapped=True) == (False, False)

    def test_other_pools_are_left_alone(self):
        """Threads have no pipes."""
        pool: Any = SimpleNamespace(flush=None)
        pools.see_to_what_is_written(pool)
        assert pool.flush is None


class TestRequests:
    def test_celery_gives_the_pool_what_we_replace(self):
        """What a child gets is the body, its type, and the dict; what runs here and is logged, the arguments."""
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
        """A connection to PostgreSQL with a pool, which has not been opened."""
        monkeypatch.setattr(DatabaseWrapper, "_connection_pools", {})
        options = {"pool": {"min_size": 1, "max_size": 1}, "host": "/nowhere"}
        given = {"ENGINE": "django.db.backends.postgresql", "NAME": "none", "OPTIONS": options}
        connections.settings["pooled"] = connections.configure_settings({"default": given})["default"]
        connection = connections["pooled"]
        assert isinstance(connection, DatabaseWrapper)
        yield connection
        connections.settings.pop("pooled")
        del connections["pooled"]

    def test_pools_that_were_opened_are_closed(self, pooled):
        """Django makes a new one when it is asked for the next connection."""
        pool = pooled.pool
        close_pools()
        assert pool.closed
        assert pooled.pool is not pool

    def test_pools_that_were_inherited_are_forgotten(self, pooled):
        """A child makes its own, and closes nothing of its parent's."""
        pool = pooled.pool
        pool.open()
        try:
            forget_pools()
            assert not pool.closed
            assert pooled.pool is not pool
        finally:
            pool.close()

    def test_no_pool_is_made_to_be_closed(self, pooled):
        """Where nobody has asked for one there is none to close, nor to forget."""
        close_pools()
        forget_pools()
        assert pooled._connection_pools == {}

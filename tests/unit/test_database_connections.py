"""The database connections of a worker's main process, and of its children, around forks."""

from __future__ import annotations

import os
import threading
import time
from unittest import mock

import pytest
from celery import Celery
from celery.app.trace import build_tracer
from django.db import connections

from signalbus.ledger.sweeps.due import Look
from signalbus.receiving.process import database_connections, fork_guard, interruption
from signalbus.receiving.process.fork_guard import ForkGuard
from signalbus.receiving.sweeping import sweeper
from signalbus.receiving.sweeping.sweeper import Sweeper
from tests.servers import wait_until

# These tests fork while threads run, as a worker does.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def status_of_a_child(check) -> int:
    """Fork, and return 0 if the check succeeds in the child."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class TestForks:
    @pytest.mark.django_db
    def test_a_process_that_does_not_fork_keeps_its_connections(self):
        """Celery's solo pool announces a child too, and is the process itself."""
        connections["default"].ensure_connection()
        raw = connections["default"].connection
        database_connections.drop_inherited()
        assert connections["default"].connection is raw

    @pytest.mark.django_db
    def test_a_child_forgets_its_parents_connections(self):
        """The child does not close them, because the parent uses them."""
        connections["default"].ensure_connection()

        def forgets() -> bool:
            with mock.patch.object(connections["default"], "close", side_effect=AssertionError):
                database_connections.drop_inherited()
            return connections["default"].connection is None

        assert status_of_a_child(forgets) == 0

    def test_a_thread_may_connect_without_the_pool(self, monkeypatch):
        """The sweeper does; other threads keep their pool."""
        options = connections.settings["default"]["OPTIONS"]
        monkeypatch.setitem(connections.settings["default"], "OPTIONS", {**options, "pool": True})
        seen: list[object] = []

        def look() -> None:
            database_connections.use_no_pools()
            seen.append(connections["default"].settings_dict["OPTIONS"].get("pool"))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join(10)
        assert seen == [None]
        assert connections.settings["default"]["OPTIONS"]["pool"] is True


class TestSweeper:
    def test_no_child_is_forked_during_a_sweep(self, monkeypatch):
        """A fork waits for the present batch, and the sweeper goes on after it."""
        swept: list[str] = []
        may_end = threading.Event()

        def slow(share: object, *, lost: bool) -> tuple[int, float | None]:
            swept.append("begun")
            may_end.wait(10)
            swept.append("ended")
            return 0, 0.01

        monkeypatch.setattr(sweeper, "publish_some", slow)
        monkeypatch.setattr(sweeper, "mark", lambda: None)
        monkeypatch.setattr(Sweeper, "_make_due", lambda self: 0.01)
        monkeypatch.setattr("signalbus.ledger.sweeps.look", lambda: Look(is_idle=False, is_anything_paused=False))
        monkeypatch.setattr("signalbus.ledger.sweeps.anything_due", lambda: True)
        thread = Sweeper(0.01)
        thread.start()
        try:
            wait_until(lambda: swept, what="a sweep")
            threading.Timer(0.2, may_end.set).start()
            assert status_of_a_child(lambda: swept.count("begun") == swept.count("ended")) == 0
            before = len(swept)
            wait_until(lambda: len(swept) > before, what="the next sweep")
        finally:
            may_end.set()
            thread.stop()
            thread.join(10)

    def test_a_fork_waits_only_briefly_for_a_hanging_sweep(self, monkeypatch):
        """An outage of the database must not stop the worker."""
        monkeypatch.setattr(fork_guard, "FORK_SECONDS", 0.1)
        guard = ForkGuard()
        release = threading.Event()
        holds = threading.Event()

        def hang() -> None:
            with guard:
                holds.set()
                release.wait(10)

        thread = threading.Thread(target=hang)
        thread.start()
        holds.wait(10)
        begun = time.monotonic()
        try:
            # The child can fork in turn: the lock is not held by a thread that it does not have.
            assert status_of_a_child(lambda: guard._lock.acquire(blocking=False)) == 0
            assert time.monotonic() - begun < 5
        finally:
            release.set()
            thread.join(10)


class TestShutdown:
    @pytest.fixture(autouse=True)
    def byte(self, monkeypatch):
        """Nothing has ended yet, and the wait for the main process takes no time."""
        monkeypatch.setattr(interruption, "PATIENCE", 0.0)
        yield
        interruption._shared[0] = 0

    def test_a_child_sees_that_the_worker_shuts_down(self):
        """The flag reaches a child that was forked before."""
        ready, told = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(ready[1], b"." if not interruption.is_shutting_down() else b"!")
            os.read(told[0], 1)
            os._exit(0 if interruption.is_shutting_down() else 1)
        assert os.read(ready[0], 1) == b"."
        interruption.tell_children()
        os.write(told[1], b".")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for end in (*ready, *told):
            os.close(end)

    def test_a_child_that_is_killed_alone_is_no_shutdown(self, monkeypatch):
        """The worker goes on."""
        monkeypatch.setattr(interruption, "is_child_exiting", lambda: True)
        assert interruption.was_cut_off()
        assert not interruption.is_shutting_down()


def test_a_task_in_a_worker_is_told_from_an_eager_one():
    """An eager task may run in a caller's transaction."""

    @Celery(set_as_current=False).task(bind=True)
    def look(self):
        return database_connections._is_worker()

    assert not database_connections._is_worker()
    assert look.apply().get() is False
    assert build_tracer(look.name, look, app=look.app)("id", [], {}, {"is_eager": False}).retval is True

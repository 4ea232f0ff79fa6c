"""The sweeper's connection is kept between two sweeps, and never a child's."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import OperationalError, connection

from signalbus.ledger import sweeps as ledger
from signalbus.ledger.base.clock import Now
from signalbus.ledger.operations import pause, pauses, resume
from signalbus.ledger.sweeps import due
from signalbus.ledger.sweeps.due import Look
from signalbus.models import Delivery, State
from signalbus.receiving.pausing import releasing
from signalbus.receiving.pausing.pause_watch import PauseWatch
from signalbus.receiving.process import outages
from signalbus.receiving.sweeping import due_publication, sweeper
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.receiving.sweeping.idleness import idleness
from signalbus.receiving.sweeping.sweeper import Sweeper
from tests.servers import wait_until

from .bus import QUEUE, connect, fails, new_signal, prove_lost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .bus import Bus


def open_connections() -> list[object]:
    """Return the connections of the sweeper's thread between two sweeps."""
    return [connection.connection for connection in sweeper._sweeping.connections if connection.connection is not None]


@contextmanager
def running(thread: Sweeper) -> Iterator[None]:
    """Run a sweeper's thread, and wait for its end."""
    thread.start()
    try:
        yield
    finally:
        thread.stop()
        thread.join(10)


def fail_and_let_due(bus: Bus, count: int, *, runtime_ms: int) -> None:
    """Let a receiver fail so many times, and make its retries due."""
    signal = new_signal(durable=True)
    fails(signal, ValueError(), "failing")
    signal.send_many(None, [{} for _ in range(count)])
    bus.work()
    Delivery.objects.update(due_at=Now(), runtime_ms=runtime_ms)


def test_a_child_does_not_inherit_the_sweepers_connection(database_url: str):
    """The connection is closed before a fork; the sweeper makes another."""
    with running(Sweeper(0.05)):
        wait_until(open_connections, what="a connection that is kept")
        child = os.fork()
        if child == 0:
            os._exit(len(open_connections()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        wait_until(open_connections, what="the next sweep")
    assert not open_connections()


def test_a_connection_that_failed_is_not_kept(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """After a restart of the database the next sweep has a new one."""
    asked: list[object] = []

    def fail_once() -> Look:
        found = look()
        asked.append(open_connections()[0])
        if len(asked) == 1:
            raise ledger_error
        return found

    look, ledger_error = ledger.look, OperationalError("server closed the connection unexpectedly")
    monkeypatch.setattr(ledger, "look", fail_once)
    with running(Sweeper(0.05)):
        wait_until(lambda: len(asked) > 2, what="sweeps that go on")
    assert asked[0] is not asked[1]
    assert asked[1] is asked[2]


def test_lost_deliveries_are_logged_in_one_line(bus: Bus, caplog: pytest.LogCaptureFixture):
    """The number of batches does not matter; a first publication does not count."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send_many(None, [{}] * 250)
    bus.client.delete(QUEUE)
    prove_lost(bus)
    with caplog.at_level("WARNING", "signalbus"):
        assert sweep() == 250
    (line,) = [record.getMessage() for record in caplog.records if "lost" in record.getMessage()]
    assert "published 250 lost deliveries again" in line

    caplog.clear()
    bus.work()
    signal.send_later(timedelta(0), None)
    assert bus.come_again() == 1
    assert not [record for record in caplog.records if "lost" in record.getMessage()]


def test_the_sweepers_thread_logs_lost_deliveries(bus: Bus, caplog: pytest.LogCaptureFixture):
    """Each worker's thread does it, once it has published them all."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send_many(None, [{}] * 150)
    bus.client.delete(QUEUE)
    prove_lost(bus)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "lost deliveries" in record.getMessage()]

    with caplog.at_level("WARNING", "signalbus"), running(Sweeper(0.05)):
        wait_until(told, what="the line that tells of them")
    (line,) = told()
    assert "published 150 lost deliveries again" in line


def test_an_idle_worker_ends_the_wait_while_retries_wait(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """The sweeper admits the next retries as soon as the worker has nothing to do, not only when it looks by itself."""
    monkeypatch.setattr(due_publication, "ADMIT_SECONDS", 60.0)
    fail_and_let_due(bus, 30, runtime_ms=10_000)  # each takes a place of its own

    def published() -> int:
        return Delivery.objects.filter(state=State.PUBLISHED, attempts=1).count()

    with running(Sweeper(60.0)):
        wait_until(published, what="the first retry")
        for _ in range(3):
            Delivery.objects.filter(state=State.PUBLISHED, attempts=1).update(state=State.DONE, ended_at=Now())
            idleness.request_ended()
            wait_until(published, what="the next retry")


def test_idleness_is_not_noticed_unless_retries_wait(bus: Bus):
    """While no retry waits for its share, a request that ends does not wake the sweeper."""
    fail_and_let_due(bus, 1, runtime_ms=10_000)
    with running(Sweeper(60.0)):
        wait_until(lambda: Delivery.objects.filter(state=State.PUBLISHED).count() == 1, what="the retry")
        wait_until(lambda: not idleness.is_noticed, what="the end of the sweep")


def test_retries_are_published_in_one_round_trip(bus: Bus):
    """As many as are due of a queue, however many Celery messages they are divided into."""
    fail_and_let_due(bus, 35, runtime_ms=5)
    bus.client.config_resetstat()

    assert sweep() == 35

    assert bus.client.info("commandstats")["cmdstat_lpush"]["calls"] == 1
    assert bus.client.llen(QUEUE) == 2


@pytest.mark.parametrize(("runtime_ms", "sizes"), [(1, [64, 6]), (5, [20] * 3 + [10]), (20, [5] * 14), (60, [1] * 70)])
def test_retries_are_batched_by_the_runtime_of_their_last_attempt(bus: Bus, runtime_ms: int, sizes: list[int]):
    """A batch takes 100 milliseconds at most, and two group commits have room for it."""
    fail_and_let_due(bus, 70, runtime_ms=runtime_ms)

    assert sweep() == 70

    assert [len(texts) for texts in bus.take()] == sizes


def test_without_autocommit_no_transaction_stays_open(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """An open read would keep the database from cleaning up."""
    asked: list[object] = []

    def look() -> Look:
        asked.append(connection.connection)
        return ledgers_look()

    ledgers_look = ledger.look
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    monkeypatch.setattr(ledger, "look", look)
    with running(Sweeper(0.05)):
        wait_until(lambda: len(asked) > 2, what="sweeps that go on")
        wait_until(lambda: not open_connections(), what="the connection to be closed")


def test_an_outage_is_logged_when_it_begins_and_ends(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """An outage is not logged again with each sweep."""
    asked: list[int] = []

    def fail_often() -> Look:
        asked.append(1)
        if len(asked) <= 5:
            raise OperationalError("the server is away")
        return Look(is_idle=True, is_anything_paused=False)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "could not sweep" in record.getMessage()]

    monkeypatch.setattr(ledger, "look", fail_often)
    monkeypatch.setattr(outages, "QUIET", 0.0)
    with running(Sweeper(0.02)):
        wait_until(lambda: len(told()) > 1, what="the end to be told of")
        wait_until(lambda: len(asked) > 8, what="sweeps that go on")

    began, ended = told()
    assert "the server is away" in began
    assert "5 failure(s)" in ended


def test_a_sweeper_learns_of_a_pause_and_of_its_end(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """The statement that looks for due deliveries looks for pauses as well."""
    watch = PauseWatch(ledger.pause_rows)
    monkeypatch.setattr(releasing, "watch", watch)
    monkeypatch.setattr(releasing, "REFRESH_SECONDS", 0.1)

    with running(Sweeper(0.02)):
        wait_until(lambda: watch.quiet_until[0] > 0, what="a sweep that finds none")
        pause("receiver", "crm.sync")
        wait_until(watch.paused, what="the pause to be known")
        assert resume("receiver", "crm.sync") == 0
        wait_until(lambda: not watch.paused(), what="its end to be known")
        wait_until(lambda: not pauses(), what="its row to be deleted")


def test_a_sweeper_works_before_the_table_of_pauses_exists(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """The code of a release may start before its migrations."""
    due._look.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(due, "PAUSES", "signalbus_none")
        assert ledger.look() == Look(is_idle=True, is_anything_paused=False)
    due._look.cache_clear()

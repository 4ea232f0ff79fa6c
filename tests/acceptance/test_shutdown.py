"""A run that the worker's own shutdown interrupts does not count as an attempt."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
import redis

from signalbus.models import Delivery
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import fleeting, long
from tests.servers import wait_until

from .test_worker import TESTS_SETTINGS, traces

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.embedded import EmbeddedValkey
    from tests.servers import Worker


def let_it_end() -> None:
    """Let the next run finish."""
    FormEntry.objects.create(kind="long", subject="0", pid=0)


def children_that_run() -> list[int]:
    """Return the processes in which the receiver runs."""
    return list(FormEntry.objects.filter(kind="long").exclude(pid=0).values_list("pid", flat=True))


def threads_of(worker: Worker) -> set[int]:
    """Return the threads of a worker's main process, without its main one."""
    return {thread.id for thread in psutil.Process(worker.pid).threads()} - {worker.pid}


@pytest.mark.parametrize("fail_first", [False, True])
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_cold_shutdown_is_no_attempt(start_worker: Callable[..., Worker], pool: str, fail_first: bool):
    """After SIGQUIT (twice, to wait no longer) an interrupted run runs again under the same number, with a row or
    without.
    """
    number = 2 if fail_first else 1
    worker = start_worker(pool=pool, environment=TESTS_SETTINGS)
    long.send(None, label="cut", fail_first=fail_first)
    wait_until(children_that_run, what="the long run")

    worker.signal(signal.SIGQUIT)
    worker.wait_for_log("Initiating Soft Shutdown")
    worker.signal(signal.SIGQUIT)
    worker.wait(40)
    let_it_end()
    start_worker(pool=pool, environment=TESTS_SETTINGS)

    wait_until(lambda: traces("long done"), 40, "the second run")
    assert traces("long done") == [f"cut {number}"]
    row = wait_until(Delivery.objects.filter(state="done").first, what="the row to be done")
    assert row.attempts == number


def test_a_child_with_a_message_is_waited_for(start_worker: Callable[..., Worker], valkey: EmbeddedValkey):
    """The child may not have said yet that it has begun: the worker ends at once, and all is acknowledged."""
    worker = start_worker(environment=TESTS_SETTINGS, concurrency=1)
    fleeting.send(None, label="before")
    wait_until(lambda: traces("arrived"), what="a first message")
    (child,) = worker.children()

    os.kill(child, signal.SIGSTOP)
    fleeting.send(None, label="given")
    wait_until(lambda: worker.log.count("] received") == 2, what="the message to be given to the child")
    threads = threads_of(worker)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: threads - threads_of(worker), what="the sweeper's end: now the main process waits for its child")
    os.kill(child, signal.SIGCONT)

    assert worker.wait(20) == 0
    assert traces("arrived") == ["before", "given"]
    with redis.Redis.from_url(valkey.redis_url) as client:
        assert client.hlen("unacked") == client.llen("signalbus") == 0


def test_a_shutdown_of_all_processes_at_once_is_no_attempt(start_worker: Callable[..., Worker]):
    """systemd sends SIGTERM to the children too, by default. This does not count as an attempt either."""
    worker = start_worker(environment=TESTS_SETTINGS, concurrency=1)
    long.send(None, label="cut", fail_first=True)
    (child,) = wait_until(children_that_run, what="the long run")

    os.kill(child, signal.SIGTERM)
    worker.signal(signal.SIGTERM)
    worker.wait(40)
    let_it_end()
    start_worker(environment=TESTS_SETTINGS)

    wait_until(lambda: traces("long done"), 40, "the second run")
    assert traces("long done") == ["cut 2"]


def test_a_child_terminated_by_itself_is_a_failed_attempt(start_worker: Callable[..., Worker]):
    """The receiver may be the reason, so attempts are limited as if the child had been killed."""
    start_worker(environment=TESTS_SETTINGS, concurrency=1)
    long.send(None, label="killed", fail_first=True)
    (child,) = wait_until(children_that_run, what="the long run")

    os.kill(child, signal.SIGTERM)

    dead = wait_until(Delivery.objects.filter(state="dead").first, 40, "its death")
    assert dead.error.startswith("its process was lost: ")
    assert dead.attempts == 2
    assert traces("long done") == []

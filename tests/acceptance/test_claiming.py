"""Claimed messages are neither lost nor run twice: with kills, shutdowns, and workers with kombu's transport.

SIGNALBUS_CLAIMS=60 makes so many kills, and stops, of each kind.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.misbehaving.signals import counted
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from signalbus.embedded import EmbeddedValkey
    from tests.servers import Worker

KILLS = int(os.environ.get("SIGNALBUS_CLAIMS", "2"))
RATE = 150 if KILLS == 2 else 350  # signals a second, while workers come and go
KOMBUS = {"KOMBUS_TRANSPORT": "1"}


class Fleet:
    """Workers on one queue, under a steady load; each run writes a line."""

    def __init__(self, start: Callable[..., Worker], log: Path, client: Any, pool: str) -> None:
        self.sent = 0
        self.pool = pool
        self.client = client
        self._start = start
        self._log = log
        self._environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "COUNT_LOG": str(log)}

    def start_all(self, *environments: dict[str, str]) -> list[Worker]:
        """Add workers, one for each environment, when all are ready."""
        workers = [
            self._start(pool=self.pool, environment={**self._environment, **changes}, wait=False)
            for changes in environments
        ]
        for worker in workers:
            worker.wait_until_ready()
        return workers

    @contextmanager
    def load(self) -> Iterator[None]:
        """Send, until the block ends."""
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(10 / RATE):
                for _ in range(10):
                    counted.send(sender=None, label=str(self.sent), seconds=0)
                    self.sent += 1

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            ended.set()
            sender.join()

    def restart(self, worker: Worker) -> None:
        """Stop a worker warmly, and start it again."""
        stop_warmly(worker)
        worker.start()
        worker.wait_until_ready()

    def runs(self) -> Counter[str]:
        """Return how often each has run."""
        return Counter(self._log.read_text().split())

    def settle(self, timeout: float = 15.0) -> None:
        """Wait until each message has run, and none is claimed or waits.

        Args:
            timeout: seconds in which one of those that are missing has to run.
        """
        try:
            while (ran := len(self.runs())) != self.sent:
                wait_until(partial(self._went_on, ran), timeout, "what is missing")
        except AssertionError as error:
            missing = sorted({str(number) for number in range(self.sent)} - self.runs().keys(), key=int)
            places = {name: self.client.type(name) for name in self.client.scan_iter()}
            error.add_note(f"{len(missing)} of {self.sent} are missing, {missing[:20]}; the broker has {places}")
            error.add_note(f"claimed: {self.client.zrange('unacked_index', 0, -1, withscores=True)}")
            raise
        wait_until(lambda: not self.client.llen("signalbus") and not self.client.hlen("unacked"), what="the rest")

    def _went_on(self, ran: int) -> bool:
        return len(self.runs()) != ran

    def twice(self) -> list[str]:
        """Return the messages that ran more than once."""
        return [label for label, times in self.runs().items() if times > 1]


@pytest.fixture
def fleet(start_worker: Callable[..., Worker], tmp_path: Path, valkey: EmbeddedValkey, pool: str) -> Iterator[Fleet]:
    """The workers that a test starts."""
    log = tmp_path / "count.log"
    log.touch()
    with redis.Redis.from_url(valkey.redis_url) as client:
        yield Fleet(start_worker, log, client, pool)


def kill(worker: Worker) -> None:
    """End a worker and its children, as the end of its machine would."""
    assert worker.pid is not None
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def stop_warmly(worker: Worker) -> None:
    """Stop a worker as a deployment does, and let it finish its running receivers."""
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.log


def pause() -> None:
    """Let some time go by under load; its length does not matter."""
    threading.Event().wait(random.uniform(0.1, 0.6))


pytestmark = pytest.mark.parametrize("database", ["sqlite"])


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_stops_and_kills_lose_nothing_and_a_warm_stop_runs_nothing_twice(fleet: Fleet, pool: str):
    """A killed worker's messages are redelivered within ten seconds; those that had begun run again."""
    workers = fleet.start_all({}, {})
    with fleet.load():
        for number in range(KILLS):
            pause()
            fleet.restart(workers[number % 2])
    fleet.settle()
    assert not fleet.twice()

    with fleet.load():
        for number in range(KILLS - 1):
            pause()
            kill(workers[number % 2])
            workers[number % 2].start()
            workers[number % 2].wait_until_ready()
        pause()
        kill(workers[0])
        for _ in range(KILLS if pool == "prefork" else 0):
            pause()
            os.kill(random.choice(wait_until(workers[1].children)), signal.SIGKILL)
    fleet.settle(timeout=30 if KILLS > 2 else 12)  # many kills take long, and others may want the machine
    assert len(fleet.twice()) <= 4 * KILLS


@pytest.mark.parametrize("pool", ["prefork"])
def test_claiming_beside_workers_with_kombus_transport(fleet: Fleet):
    """Both kinds of workers share the queue, and each restores the claims of a killed one of the other kind."""
    ours, kombus = fleet.start_all({}, KOMBUS)
    with fleet.load():
        for _ in range(KILLS // 2):  # kombu's worker, stopped under load, hangs now and then
            pause()
            fleet.restart(ours)
    fleet.settle()
    assert not fleet.twice()

    kombus.stop()
    for label in ("a", "b"):
        counted.send(sender=None, label=label, seconds=60)
        fleet.sent += 1
    wait_until(lambda: {"a", "b"} <= fleet.runs().keys(), what="both to run")
    kill(ours)
    impatient = '{"visibility_timeout": 1, "unacked_restore_interval": 1}'
    fleet.start_all({**KOMBUS, "CELERY_BROKER_TRANSPORT_OPTIONS": impatient})
    wait_until(lambda: {"a", "b"} <= set(fleet.twice()), 30, "the other to restore them")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_rolling_change_of_the_transport(fleet: Fleet):
    """Workers change to the other transport and back, under load; then again, and those that claim are killed.

    Those with kombu's are not: what one has just taken off the list is lost with it.
    """
    # kombu's takes for lost what was given out so long ago, and looks for that seldom if nobody says otherwise.
    brief = {"CELERY_BROKER_TRANSPORT_OPTIONS": '{"visibility_timeout": 6, "unacked_restore_interval": 1}'}
    kinds = [brief, {**brief, **KOMBUS}]
    workers = fleet.start_all(*kinds)
    with fleet.load():
        for number in range(max(KILLS, 4)):
            pause()
            stop_warmly(workers.pop(0))
            workers += fleet.start_all(kinds[number // 2 % 2])
    fleet.settle()
    assert not fleet.twice()

    with fleet.load():
        for number in range(max(KILLS, 4)):
            pause()
            kombus = "KOMBUS_TRANSPORT" in workers[0].environment
            (stop_warmly if kombus else kill)(workers.pop(0))
            workers += fleet.start_all(kinds[number // 2 % 2])
    fleet.settle(timeout=30)
    assert len(fleet.twice()) <= 4 * KILLS


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"] if KILLS > 2 else ["solo"])
def test_long_work_is_not_redelivered(fleet: Fleet):
    """The other worker has a shorter visibility timeout, and nothing to do."""
    options = '{"visibility_timeout": 6, "unacked_restore_interval": 1}'
    impatient = {"CELERY_BROKER_TRANSPORT_OPTIONS": options}
    fleet.start_all(impatient)
    counted.send(sender=None, label="long", seconds=9)
    fleet.sent += 1
    wait_until(fleet.runs, what="it to run")
    fleet.start_all({**impatient, **KOMBUS})
    fleet.settle()
    assert not fleet.twice()

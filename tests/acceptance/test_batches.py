"""A misbehaving message of a batch does not affect the others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import redis

from signalbus.models import Delivery, State
from tests.misbehaving.signals import bound, hung, hung_open, hung_unrecorded, together
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path

    from signalbus import Signal
    from tests.servers import Worker

QUEUE = "signalbus"
WARMING = 150  # messages after which a worker knows how brief they are
COUNT = 60
ODD = 7  # the one that misbehaves


class Scene:
    """A worker that knows its receiver's run time, and a backlog that arrives in one moment.

    Args:
        start_worker: starts it.
        place: where the receiver leaves its traces.
        client: of the broker.
    """

    def __init__(self, start_worker: Callable[..., Worker], place: Path, client: redis.Redis) -> None:
        self.start_worker = start_worker
        self.place = place
        self.client = client

    def begin(
        self,
        act: str,
        environment: dict[str, str] | None = None,
        *,
        signal: Signal = together,
        batch: bool = False,
        acting: Container[int] = (ODD,),
        **options: Any,
    ) -> Worker:
        """Start a worker, let it learn, and give it its backlog, of which some messages misbehave."""
        backlog = [{"number": number, "act": act if number in acting else ""} for number in range(COUNT)]
        if batch:
            signal.send_many(None, backlog)
        else:
            for payload in backlog:
                signal.send(None, **payload)
        self.client.rename(QUEUE, "backlog")
        for number in range(WARMING):
            signal.send(None, number=-1 - number, act="")
        settings = {"DJANGO_SETTINGS_MODULE": "tests.settings", "BATCH_FOLDER": str(self.place), **(environment or {})}
        worker = self.start_worker(environment=settings, **options)
        wait_until(lambda: sum(self.ran().values()) == WARMING and self.is_empty(), 30, "the worker to learn")
        self.client.rename("backlog", QUEUE)
        return worker

    def ran(self) -> Counter[int]:
        """Count the runs by their numbers."""
        log = self.place / "ran"
        return Counter(map(int, log.read_text(encoding="utf-8").split())) if log.exists() else Counter()

    def others(self) -> Counter[int]:
        """Count the runs of the backlog, without the misbehaving message."""
        return Counter({number: count for number, count in self.ran().items() if number >= 0 and number != ODD})

    def is_empty(self) -> bool:
        """Return whether the broker has no message any more."""
        return not self.client.exists(QUEUE) and not self.client.hlen("unacked")


EACH_OTHER_ONCE = Counter({number: 1 for number in range(COUNT) if number != ODD})


@pytest.fixture
def scene(start_worker: Callable[..., Worker], tmp_path: Path, valkey) -> Scene:
    """A scene without a worker yet."""
    return Scene(start_worker, tmp_path, redis.Redis.from_url(valkey.redis_url))


@pytest.mark.parametrize(("pool", "batch"), [("prefork", False), ("prefork", True), ("threads", False)])
def test_other_messages_do_not_wait_for_a_straggler(scene: Scene, pool: str, batch: bool):
    """The other messages of the batch run elsewhere after about a second, once; the straggler ends normally."""
    worker = scene.begin("hang", pool=pool, batch=batch)

    wait_until(lambda: len(scene.others()) == COUNT - 1, 15, "all others to run while one hangs")
    wait_until(lambda: "behind another of their message" in worker.log, what="it to be told of")
    assert not (scene.place / "released").exists()
    (scene.place / "released").touch()
    wait_until(scene.is_empty, what="the one that hung to end")

    assert scene.others() == EACH_OTHER_ONCE
    assert scene.ran()[ODD] == 1
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_other_receivers_of_a_message_do_not_wait_for_a_straggler(scene: Scene, pool: str):
    """Those that have not begun run elsewhere, each once: with rows, without, and of open signals."""
    settings = {"DJANGO_SETTINGS_MODULE": "tests.settings", "BATCH_FOLDER": str(scene.place)}
    scene.start_worker("-c", "4", environment=settings, pool=pool)
    log = scene.place / "ran"

    def ran() -> Counter[str]:
        return Counter(log.read_text(encoding="utf-8").split()) if log.exists() else Counter()

    siblings = {"first": 3, "hangs": 3, "third": 3, "atomic": 3}
    hung.send(None)
    hung_unrecorded.send(None)
    hung_open.send(None)
    wait_until(lambda: ran() == siblings, 15, "the siblings of the three that hang to run")
    assert not (scene.place / "released").exists()
    (scene.place / "released").touch()
    wait_until(scene.is_empty, what="those that hung to end")
    assert ran() == siblings
    assert set(Delivery.objects.values_list("state", "attempts")) == {(State.DONE, 1)}


def test_a_batch_of_slow_messages_is_distributed_over_all_processes(scene: Scene):
    """The messages were brief until now; no process idles, and each message runs once."""
    worker = scene.begin("linger", batch=True, acting=range(COUNT))
    before = worker.log.count("succeeded in")

    wait_until(lambda: len(scene.others()) == COUNT - 1 and scene.is_empty(), what="all to run")

    assert scene.others() == EACH_OTHER_ONCE
    assert scene.ran()[ODD] == 1
    assert worker.log.count("succeeded in") - before > COUNT / 2


@pytest.mark.parametrize("database", ["postgres"])
def test_a_group_commit_does_not_wait_for_a_straggler(scene: Scene, database: str):
    """The database ends its transaction and frees the rows of the others, which are done elsewhere, once."""
    scene.begin("hang", signal=bound, batch=True)
    once = Delivery.objects.filter(state=State.DONE, attempts=1)

    wait_until(lambda: once.count() == WARMING + COUNT - 1, 15, "all others to be done")
    assert not (scene.place / "released").exists()
    (scene.place / "released").touch()
    wait_until(lambda: once.count() == WARMING + COUNT, what="the one that hung to be done")


def test_a_killed_child_does_not_affect_the_other_messages(scene: Scene):
    """Done messages stay done, waiting ones run, and only the lost run is a failed attempt, the last one."""
    scene.begin("kill")

    dead = wait_until(Delivery.objects.filter(state=State.DEAD).first, 30, "the loss to be written down")
    wait_until(lambda: scene.is_empty() and len(scene.others()) == COUNT - 1, what="the others to run")

    assert scene.others() == EACH_OTHER_ONCE
    assert scene.ran()[ODD] == 1
    assert dead.error == "its process was lost: signal 9 (SIGKILL)"
    assert Delivery.objects.count() == 1


def test_a_message_over_its_time_limit_fails_alone(scene: Scene):
    """The others are not retried with it; its attempts are limited as usual."""
    scene.begin("overrun", {"TIME_LIMIT": "2"}, batch=True)

    wait_until(Delivery.objects.filter(state__in=(State.DEAD, State.PENDING)).first, 30, "the one to be counted")
    wait_until(lambda: len(scene.others()) == COUNT - 1, what="the others to run")

    assert scene.others() == EACH_OTHER_ONCE
    assert Delivery.objects.count() == 1

"""Workers that share many queues with priorities run every message once, starve no queue, and need few connections."""

from __future__ import annotations

import json
from base64 import b64decode
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest
import redis

from signalbus.celery import TASK_NAME, get_app
from tests.misbehaving.signals import counted
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from signalbus.embedded import EmbeddedValkey
    from tests.servers import Worker

QUEUES = [f"q{number}" for number in range(40)]
PRIORITIES = (0, 3, 6, 9)  # kombu's own steps on Redis: a list for each
CROWDED = 2000  # messages in the first queue
FEW = 12  # in each of the others
POOLS = ("solo", "threads", "prefork", "prefork")

pytestmark = pytest.mark.parametrize("database", ["sqlite"])


def texts_of(labels: Sequence[str], client: Any) -> list[str]:
    """Return the texts that a send of each would put on a queue."""
    counted.send_many(None, [{"label": label, "seconds": 0} for label in labels])
    texts: list[str] = []
    while (item := client.rpop("signalbus")) is not None:
        ((some,), _, _) = json.loads(b64decode(json.loads(item)["body"]))
        texts += some
    return texts


def test_four_workers_on_forty_queues(start_worker: Callable[..., Worker], valkey: EmbeddedValkey, tmp_path: Path):
    """One queue is crowded, which must not delay the others."""
    log = tmp_path / "count.log"
    log.touch()
    app = get_app()
    with redis.Redis.from_url(valkey.redis_url) as client, app.connection_for_write() as connection:
        numbers = [(queue, number) for queue in QUEUES for number in range(CROWDED if queue == QUEUES[0] else FEW)]
        labels = [f"{queue}-{PRIORITIES[number % len(PRIORITIES)]}-{number}" for queue, number in numbers]
        producer = app.amqp.Producer(connection)
        for label, text in zip(labels, texts_of(labels, client), strict=True):
            queue, priority, _ = label.split("-")
            app.send_task(TASK_NAME, [[text]], queue=queue, priority=int(priority), producer=producer)
        before = len(client.client_list())

        environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "COUNT_LOG": str(log)}
        workers = [
            start_worker("-Q", ",".join(QUEUES), pool=pool, environment=environment, wait=False) for pool in POOLS
        ]
        for worker in workers:
            worker.wait_until_ready()
        wait_until(lambda: len(log.read_text().split()) >= len(labels), 60, "all to run")
        wait_until(lambda: not client.hlen("unacked"), what="all to be acknowledged")
        connections = len(client.client_list()) - before

    ran = log.read_text().split()
    assert sorted(ran) == sorted(labels)
    places = {label: place for place, label in enumerate(ran)}
    middles = []
    for step in PRIORITIES:
        equals = [label for label in ran if label.split("-")[1] == str(step)]
        crowd = [label for label in equals if label.startswith(f"{QUEUES[0]}-")]
        few = [place for place, label in enumerate(equals) if label not in crowd]
        assert max(few) < 0.75 * len(equals)
        middles.append(mean(places[label] for label in equals))
    assert middles == sorted(middles)
    assert connections <= 6 * len(workers), connections
    assert all("Traceback" not in worker.log for worker in workers)

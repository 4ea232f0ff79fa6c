"""A message that waits long is late, not lost: a real worker with a backlog, and a key that is gone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import redis

from signalbus.models import Delivery
from tests.misbehaving.signals import arriving, lingering
from tests.servers import wait_until

from .test_worker import TESTS_SETTINGS, traces

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.embedded import EmbeddedValkey
    from tests.servers import Worker

# These wait as long as the rules of the sweeper do, by the clock: SIGNALBUS_LONG=1.
pytestmark = pytest.mark.skipif("SIGNALBUS_LONG" not in os.environ, reason="SIGNALBUS_LONG is not set")

MESSAGES = 1500
SECONDS = 75.0  # that the backlog takes at least: MESSAGES times the 50 ms of its receiver


@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["postgres", "sqlite"])
def test_a_backlog_is_not_published_again(start_worker: Callable[..., Worker], valkey: EmbeddedValkey):
    """The number of items on the broker grows by a marker at most; each delivery is published and run once."""
    for number in range(MESSAGES):
        lingering.send(None, number=number)
    start_worker(concurrency=1, environment=TESTS_SETTINGS)
    lowest, grown = MESSAGES, 0

    with redis.Redis.from_url(valkey.redis_url) as client:

        def is_empty() -> bool:
            nonlocal lowest, grown
            waiting, held = client.pipeline().llen("signalbus").hlen("unacked").execute()
            grown = max(grown, waiting + held - lowest)
            lowest = min(lowest, waiting + held)
            return Delivery.objects.filter(state="done").count() == MESSAGES

        wait_until(is_empty, 4 * SECONDS, "the backlog's end")

    assert grown <= 1
    assert set(Delivery.objects.values_list("publications", "attempts")) == {(0, 1)}
    assert sorted(map(int, traces("lingered"))) == list(range(MESSAGES))
    spent = Delivery.objects.order_by("ended_at").values_list("ended_at", flat=True)
    first, last = spent[0], spent[MESSAGES - 1]
    assert first is not None
    assert last is not None
    assert (last - first).total_seconds() >= SECONDS * 0.9


@pytest.mark.timeout(600)
@pytest.mark.parametrize("on_the_broker", [True, False])
def test_messages_under_a_removed_key_are_delivered(
    start_worker: Callable[..., Worker], valkey: EmbeddedValkey, on_the_broker: bool
):
    """Messages under a key that no worker has are signed anew and delivered, once each."""
    for number in range(10):
        arriving.send(None, label=str(number))
    if not on_the_broker:
        with redis.Redis.from_url(valkey.redis_url) as client:
            client.flushall()

    start_worker(environment={**TESTS_SETTINGS, "SECRET_KEY": "tomorrow's"})

    wait_until(lambda: len(traces("arrived")) == 10, 120, "all to arrive")
    assert sorted(map(int, traces("arrived"))) == list(range(10))

"""taskiq on a Redis list, its fastest broker there; the messages of a worker that dies are lost."""

from __future__ import annotations

import asyncio
import os

from taskiq_redis import ListQueueBroker

from benchmarks.tally import tally

broker = ListQueueBroker(os.environ["BENCH_REDIS_URL"])


@broker.task
async def nothing(number: int) -> None:
    """Do nothing."""
    tally()


def send(count: int) -> None:
    """Send so many."""

    async def send_all() -> None:
        await broker.startup()
        for number in range(count):
            await nothing.kiq(number)
        await broker.shutdown()

    asyncio.run(send_all())

"""huey on Redis."""

from __future__ import annotations

import os

from huey import RedisHuey

from benchmarks.tally import tally

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS_URL"])


@huey.task()
def nothing(number: int) -> None:
    """Do nothing."""
    tally()


def send(count: int) -> None:
    """Send so many."""
    for number in range(count):
        nothing(number)

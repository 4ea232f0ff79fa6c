"""RQ, which forks for each job."""

from __future__ import annotations

import os

from redis import Redis
from rq import Queue

from benchmarks.tally import tally

REDIS_URL = os.environ["BENCH_REDIS_URL"]  # the command line reads it here


def nothing(number: int) -> None:
    """Do nothing."""
    tally()


def send(count: int) -> None:
    """Send so many."""
    queue = Queue(connection=Redis.from_url(REDIS_URL))
    for number in range(count):
        queue.enqueue(nothing, number)

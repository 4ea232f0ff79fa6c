"""Measures a send and a delivery in a process with many signals: ``python -m benchmarks.many_signals SIGNALS FAN_OUT``.

Each line that it reads is an order to measure once; it answers with this process's microseconds of processor time
for a send, and for the delivery of a message.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import django
import redis

from benchmarks.timing import by_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model

CALLS = 300


def main(signals: int, receivers: int) -> None:
    """Register the signals, and measure as often as asked.

    Args:
        signals: how many, with as many receivers.
        receivers: of the signal that is sent.
    """
    django.setup()
    from signalbus import Signal  # noqa: PLC0415 - needs Django's apps
    from tasks.admissions.models import Cohort  # noqa: PLC0415

    declared = [Signal(f"benchmarks.signal_{number}", durable=False) for number in range(signals)]
    kept: list[Callable[..., None]] = []
    for number, signal in enumerate(declared):
        for place in range(receivers if number == 0 else 1):

            def receiver(sender: type[Model], **kwargs: Any) -> None:
                """Listen."""

            signal.connect(receiver, sender=Cohort, dispatch_uid=f"benchmarks.signal_{number}_{place}", atomic=False)
            kept.append(receiver)
    send = partial(declared[0].send, sender=Cohort, cohort_id=1, created=True)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*_measure(send), flush=True)


def _measure(send: Callable[[], object]) -> tuple[float, float]:
    from benchmarks.deliveries import published  # noqa: PLC0415 - needs Django's apps
    from signalbus.receiving.routing.batch import deliver  # noqa: PLC0415

    with redis.Redis.from_url(os.environ["BENCH_REDIS_URL"]) as client:
        (texts,) = published(client, send)
        ways: dict[str, Callable[[], object]] = {"send": send, "deliver": partial(deliver, texts)}
        times = by_turns(ways, calls=CALLS, rounds=1, clock=time.process_time)
        published(client, int)
    return times["send"][0], times["deliver"][0]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""What a delivery costs in a worker's process, without Celery around it."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

from django.db import connection

from benchmarks import signals
from benchmarks.measure import Line, summarize
from benchmarks.sending import BATCH, QUEUES
from signalbus.receiving.batch import deliver

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from signalbus import Signal

MESSAGES = 400  # in a round


class Deliveries:
    """Measures deliveries to a receiver that writes a row.

    Args:
        broker: a client of the server that the messages go through.
        rounds: how many.
    """

    def __init__(self, broker: redis.Redis, rounds: int) -> None:
        self.broker = broker
        self.rounds = rounds

    def lines(self, suffix: str) -> Iterator[Line]:
        """Measure durable deliveries beside those without a row."""
        for together, target in ((BATCH, 0.9 if connection.vendor == "postgresql" else None), (1, 1.4)):
            title = f"a durable delivery, and durable=False; {together} together{suffix}"
            yield summarize(title, [*self._pairs(together)][1:], "us", target)

    def _pairs(self, together: int) -> Iterator[tuple[float, float]]:
        for number in range(self.rounds + 1):
            pair = {}
            order = (signals.durable, signals.fleeting)
            for signal in order if number % 2 else order[::-1]:
                pair[signal] = self._time(signal, together)
            yield pair[signals.durable], pair[signals.fleeting]

    def _time(self, signal: Signal, together: int) -> float:
        """Return the microseconds that a delivery takes."""
        for _ in range(MESSAGES // together):
            signal.send_many(None, [{"number": number} for number in range(together)])
        items: list[Any] = self.broker.lrange(QUEUES[0], 0, -1)
        self.broker.delete(QUEUES[0])
        batches = [json.loads(base64.b64decode(json.loads(item)["body"]))[0][0] for item in items]
        start = time.perf_counter()
        for texts in batches:
            deliver(texts)
        return (time.perf_counter() - start) / MESSAGES * 1e6

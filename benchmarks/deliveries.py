"""Deliveries in this process, without Celery."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from benchmarks.servers import QUEUES
from signalbus.receiving.routing.batch import deliver

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from signalbus import Signal

Batch = list[str]  # the texts of one Celery message


def published(client: redis.Redis, send: Callable[[], object]) -> list[Batch]:
    """Send, and return the items that are then on our queue.

    Args:
        client: of the broker.
        send: whatever sends.
    """
    client.delete(QUEUES[0])
    send()
    items: Any = client.lrange(QUEUES[0], 0, -1)
    client.delete(QUEUES[0])
    return [json.loads(base64.b64decode(json.loads(item)["body"]))[0][0] for item in items]


class Waiting:
    """Sent messages of a signal; each call delivers one Celery message.

    Args:
        client: of the broker.
        signal: what is sent.
        together: texts in a Celery message.
    """

    def __init__(self, client: redis.Redis, signal: Signal, together: int) -> None:
        self.client = client
        self.signal = signal
        self.together = together
        self._waiting: list[Batch] = []

    def fill(self, calls: int) -> None:
        """Send as many as will be delivered, before the clock runs.

        Args:
            calls: how often this will be called.
        """
        payloads = [{"number": number} for number in range(self.together)]

        def send() -> None:
            for _ in range(calls):
                self.signal.send_many(None, payloads)

        self._waiting = published(self.client, send)

    def __call__(self) -> None:
        deliver(self._waiting.pop())

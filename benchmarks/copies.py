"""A great many messages in a short time: copies of one that was sent, each with ids of its own, as Celery's are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from benchmarks.ground import Ground

CHUNK = 1000  # in one command


def multiply(ground: Ground, queue: str, count: int) -> None:
    """Put copies of a queue's only message in its place.

    The text in it, and with it the message's own id, is the same in all: so this is for what has no rows.

    Args:
        ground: the servers.
        queue: holds one message.
        count: how many it holds afterwards.
    """
    item: bytes = ground.client.lpop(queue)
    envelope = json.loads(item)
    task, tag = envelope["headers"]["id"].encode(), envelope["properties"]["delivery_tag"].encode()
    for start in range(0, count, CHUNK):
        copies = [
            item.replace(task, str(uuid4()).encode()).replace(tag, str(uuid4()).encode())
            for _ in range(min(CHUNK, count - start))
        ]
        ground.client.lpush(queue, *copies)

"""Copies messages, as if they had been sent through another queue, or many times."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from benchmarks.servers import Servers

CHUNK = 1000  # in one command


def readdressed(item: bytes, queue: str, other: str) -> bytes:
    """Return a queue item as if its message had been sent through another queue.

    Args:
        item: as kombu writes it.
        queue: that it was sent through.
        other: the other one.
    """
    before = f'"routing_key": "{queue}"'.encode()
    if before not in item:
        raise ValueError(f"no message of the queue {queue!r}: {item!r}")
    return item.replace(before, f'"routing_key": "{other}"'.encode())


def readdress(servers: Servers, queue: str, key: str, other: str) -> None:
    """Move all messages of a queue to a key, as if they had been sent through another queue.

    Args:
        servers: of the run.
        queue: whose messages.
        key: where they go, in their order.
        other: the other queue.
    """
    items = [readdressed(item, queue, other) for item in servers.client.lrange(queue, 0, -1)]
    for start in range(0, len(items), CHUNK):
        servers.client.rpush(key, *items[start : start + CHUNK])
    servers.client.delete(queue)


def multiply(servers: Servers, key: str, count: int) -> None:
    """Replace a key's only message by copies of it, each with ids of its own, as Celery's are.

    The text in it, and with it the message's own id, is the same in all: so this is for what has no rows.

    Args:
        servers: of the run.
        key: holds one message.
        count: how many it holds afterwards.
    """
    item: bytes = servers.client.lpop(key)
    envelope = json.loads(item)
    task, tag = envelope["headers"]["id"].encode(), envelope["properties"]["delivery_tag"].encode()
    for start in range(0, count, CHUNK):
        copies = [
            item.replace(task, str(uuid4()).encode()).replace(tag, str(uuid4()).encode())
            for _ in range(min(CHUNK, count - start))
        ]
        servers.client.lpush(key, *copies)

"""Count the workers that consume a queue, by the names of their connections in Redis's list of clients.

`tracking_connection` names the connection of a worker after its queues; `broker/queue_status` counts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "signalbus:"
BLOCKING = frozenset({"brpop", "bzmpop", "blmpop"})  # commands by which kombu's own transport waits


def name_of(queues: Iterable[str]) -> str:
    """Return the name of a connection that consumes some queues: printable ASCII without blanks, as Redis asks for."""
    return PREFIX + ",".join(quote(queue, safe="") for queue in sorted(queues))


def consumers_of(client: Any, database: int, queue: str) -> int | None:
    """Count the workers that consume a queue.

    Args:
        client: of redis-py.
        database: the number of the database that the queue lies in.
        queue: its name, with the global prefix.

    Returns:
        How many claim from it. None if none is seen, and that does not mean that there is none: this user may not see
        the list of clients, or a worker waits as kombu's own transport does, which does not name its queues.
    """
    try:
        clients = [each for each in client.client_list() if each.get("db") == str(database)]
    except ResponseError:
        return None
    names = [each["name"].removeprefix(PREFIX) for each in clients if each.get("name", "").startswith(PREFIX)]
    count = sum(queue in map(unquote, name.split(",")) for name in names)
    return None if not count and any(each.get("cmd") in BLOCKING for each in clients) else count

"""The consumers of each queue, read from the names of Redis connections."""

from __future__ import annotations

import pytest
from redis.exceptions import NoPermissionError

from signalbus.transport.consumers import consumers_of, name_of


class Client:
    """A client whose server has the connections of the test."""

    def __init__(self, *connections: dict[str, str], error: Exception | None = None) -> None:
        self._connections = connections
        self._error = error

    def client_list(self) -> list[dict[str, str]]:
        if self._error is not None:
            raise self._error
        return list(self._connections)


def connection(name: str = "", db: str = "0", cmd: str = "evalsha") -> dict[str, str]:
    """Return a connection as the server lists it."""
    return {"name": name, "db": db, "cmd": cmd}


@pytest.mark.parametrize("queues", [["signalbus"], ["b", "a"], ["with blank", "ü,:%", "{x}"], []])
def test_name_can_be_read_again(queues: list[str]):
    """It is valid for Redis, whatever the names of the queues."""
    name = name_of(queues)
    assert all("!" <= character <= "~" for character in name)
    for queue in queues:
        assert consumers_of(Client(connection(name)), 0, queue) == 1
    assert consumers_of(Client(connection(name)), 0, "another") == 0


def test_workers_are_counted_for_each_queue_of_one_database():
    """Other connections are on other databases, or are no workers."""
    client = Client(
        connection(name_of(["a", "b"])), connection(name_of(["b"])), connection(name_of(["b"]), db="1"), connection("b")
    )
    assert [consumers_of(client, 0, queue) for queue in "abc"] == [1, 2, 0]


def test_an_unknown_number_of_consumers_is_none():
    """A worker with kombu's transport does not name its queues; a user may not see the list."""
    assert consumers_of(Client(connection(cmd="brpop")), 0, "a") is None
    assert consumers_of(Client(connection(cmd="brpop", db="1")), 0, "a") == 0
    assert consumers_of(Client(error=NoPermissionError("no")), 0, "a") is None
    mixed = Client(connection(cmd="brpop"), connection(name_of(["a"])))
    assert [consumers_of(mixed, 0, queue) for queue in "ab"] == [1, None]

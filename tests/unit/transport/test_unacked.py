"""The heartbeat's commands while its channel closes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from signalbus.transport.unacked import Unacked


class Pool:
    """A pool that lends one connection, whose socket another thread closes during a read."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.released = 0

    def get_connection(self) -> Pool:
        """Lend it."""
        return self

    def release(self, connection: Pool) -> None:
        """Take it back."""
        self.released += 1

    def send_command(self, *command: str) -> None:
        """Send nothing."""

    def read_response(self) -> None:
        """Fail on the missing socket, as redis-py's parsers do."""
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("I/O operation on closed file."), AttributeError("'NoneType' object has no attribute 'recv'")]
)
@pytest.mark.parametrize(("closing", "raised"), [(True, RedisConnectionError), (False, Exception)])
def test_a_connection_closed_during_a_read_counts_as_lost(error: Exception, closing: bool, raised: type[Exception]):
    """The heartbeat goes on, as if the server had closed it; other errors are raised."""
    pool = Pool(error)
    channel = SimpleNamespace(
        closed=False, _closing=closing, pool=pool, global_keyprefix="", unacked_key="u", unacked_index_key="i"
    )
    with pytest.raises(raised) as met:
        Unacked(channel).command("PING")
    assert (met.value is error) is not closing
    assert pool.released == 1

"""What is told of claims while the channel that they belong to closes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from signalbus.transport.unacked import Unacked


class Pool:
    """Lends one connection, whose socket another thread closes while somebody reads from it."""

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
        """Fall over what is missing, as redis-py's parsers do."""
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("I/O operation on closed file."), AttributeError("'NoneType' object has no attribute 'recv'")]
)
@pytest.mark.parametrize(("closing", "raised"), [(True, RedisConnectionError), (False, Exception)])
def test_a_connection_that_was_cut_is_one_that_is_gone(error: Exception, closing: bool, raised: type[Exception]):
    """The pulse goes on, as where the server had ended it; what is wrong with an open one is nobody's expectation."""
    pool = Pool(error)
    channel = SimpleNamespace(
        closed=False, _closing=closing, pool=pool, global_keyprefix="", unacked_key="u", unacked_index_key="i"
    )
    with pytest.raises(raised) as met:
        Unacked(channel).command("PING")
    assert (met.value is error) is not closing
    assert pool.released == 1

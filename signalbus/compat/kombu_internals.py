"""Wrap the private parts of kombu and redis-py that publishing uses; tests notice a change.

They are in tests/integration/test_fast_path.py, which compares what the fast path writes with what kombu writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from kombu import Connection


def speaks_redis(connection: Connection) -> bool:
    """Return whether a connection's transport is kombu's Redis transport or a subclass of it.

    Args:
        connection: need not be connected.
    """
    if "redis" not in str(connection.transport.driver_type):
        return False  # nothing is imported for a host on another broker
    from kombu.transport import redis  # noqa: PLC0415 - as above

    return isinstance(connection.transport, redis.Transport)


def is_sentinel(connection: Connection) -> bool:
    """Return whether a connection of kombu's Redis transport asks sentinels for the server's address."""
    from kombu.transport import redis  # noqa: PLC0415 - as above

    return isinstance(connection.transport, redis.SentinelTransport)


class _Recorder:
    """An object in the place of a Redis client that records ``LPUSH`` and has no other method."""

    def __init__(self) -> None:
        self.pushed: list[tuple[str, str]] = []

    def lpush(self, key: str, item: str) -> None:
        self.pushed.append((key, item))


def pushed_by(channel: Any, publish: Callable[[Any], object]) -> tuple[str, str]:
    """Run a publication to its end, and return the item that it would have pushed instead of pushing it.

    Replaces the channel's ``_create_client``, from which ``_put`` takes its Redis client, for a moment. Were it taken
    from elsewhere, the message would be pushed for real, and nothing come out here: an error, and Celery's way is used.

    Args:
        channel: of kombu's Redis transport, for this use only.
        publish: takes the channel.

    Returns:
        The key, with the global prefix, and the item.

    Raises:
        ValueError: something else was done than one LPUSH.
    """
    recorder = _Recorder()
    channel._create_client = lambda *_args, **_kwargs: recorder  # noqa: SLF001 - the reason of this module
    try:
        publish(channel)
    except AttributeError as error:
        raise ValueError(f"its transport does more than one LPUSH: {error}") from error
    finally:
        del channel._create_client  # noqa: SLF001 - as above
    if len(recorder.pushed) != 1:
        raise ValueError(f"its transport pushes {len(recorder.pushed)} items for a message")
    key, item = recorder.pushed[0]
    return f"{channel.global_keyprefix}{key}", item


def new_connection(channel: Any) -> Any:
    """Make a connection to the channel's Redis, and connect it: with its TLS, password, database, timeouts, Sentinel.

    Uses ``Channel.pool`` and its ``connection_kwargs``. The pool's own ``make_connection`` counts those that it makes,
    and never counts one down that is not given back to it.

    Args:
        channel: of kombu's Redis transport.
    """
    pool = channel.pool
    connection = pool.connection_class(**pool.connection_kwargs)
    connection.connect()
    return connection


def abandon(connection: Connection) -> None:
    """Close the socket of a connection to an AMQP broker that does not answer, without a closing handshake.

    kombu's pools and contexts close a connection after an error, and would otherwise wait for an answer twice more: the
    channel's, and the connection's. A connection that is not open, and one to another broker, is left as it is.

    Uses ``Connection._connection``; the public ``connection`` would connect again where nothing is open.

    Args:
        connection: of any transport.
    """
    opened = connection._connection  # type: ignore[attr-defined]  # noqa: SLF001 - the reason of this module
    if opened is None or connection.transport.driver_type != "amqp" or not opened.connected:
        return
    opened.sock.settimeout(0)  # else TLS would wait for the broker's closing handshake
    opened.collect()


def close_sockets(channel: Any) -> None:
    """Close the sockets that a channel has opened for itself; it opens others if it is used again.

    Args:
        channel: of kombu's Redis transport.
    """
    channel.pool.disconnect()

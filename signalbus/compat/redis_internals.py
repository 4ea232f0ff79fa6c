"""Wrap the private parts of kombu's Redis transport and of redis-py that the claiming transport uses.

A kombu transport is made by subclassing kombu's, whose parts are private by name alone. Each use of them is here, once;
tests in tests/unit/compat notice a change.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from typing import TYPE_CHECKING, Any

from kombu.exceptions import InconsistencyError
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from signalbus.compat.kombu_internals import is_sentinel

if TYPE_CHECKING:
    from collections.abc import Callable

    from kombu import Connection

MALFORMED = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
OLDEST = (6, 2)
# Replies of a server that cannot be written to now: kombu reconnects, and Sentinel then names another server.
OUTAGE_ERRORS = ("LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "READONLY", "UNBLOCKED")


def transport_of(connection: Connection) -> object:
    """Return the class of a connection's transport, without connecting."""
    return connection.get_transport_cls()


def use_transport(connection: Connection, choose: Callable[[Any], Any]) -> None:
    """Make a connection use another class of transport, also after a fail-over to another address.

    Args:
        connection: one that has made none yet.
        choose: takes the class that it would use, and returns the class to use in its place.

    Replaces ``Connection.get_transport_cls`` on the instance: its ``transport_cls`` is overwritten by each
    ``switch()``. Without it, workers would consume as kombu does.
    """
    given = connection.get_transport_cls
    connection.get_transport_cls = lambda: choose(given())  # type: ignore[method-assign]


def parsed(raw: bytes) -> Any:
    """Parse a queue item as kombu does.

    Uses that ``kombu.utils.json`` marks values that are not JSON with ``__type__``; its own ``loads`` calls a function
    for every object in the text.

    Raises:
        ValueError, RecursionError: it is no JSON.
    """
    return loads(raw.decode()) if b'"__type__"' in raw else json.loads(raw)


def delivered(raw: bytes, queue: str, tag: str) -> dict[str, Any]:
    """Return the message that kombu's consumers are given for a queue item.

    Args:
        raw: the item.
        queue: the queue that it came from, if the item does not say so.
        tag: the tag by which it is acknowledged.

    Raises:
        MALFORMED: it is no message.
    """
    message: dict[str, Any] = parsed(raw)
    properties = message["properties"]
    properties["delivery_tag"] = tag
    info = properties.get("delivery_info")
    if not isinstance(info, dict) or "exchange" not in info:
        properties["delivery_info"] = {"exchange": "", "routing_key": queue}
    if not isinstance(message["headers"], dict) or not isinstance(message["body"], str):
        raise TypeError("headers are a mapping, and a body is a text")
    return message


def server_of(connection: Connection) -> tuple[Any, ...]:
    """Return an identity of a connection's server, which is the same after each reconnect to it.

    Behind Sentinel that is the name of the primary. kombu's ``hostname`` is the sentinel whose turn it is: another
    after each attempt that fails, while all of them are asked.
    """
    virtual_host = connection.virtual_host
    if is_sentinel(connection) and connection.alt:
        return frozenset(connection.alt), (connection.transport_options or {}).get("master_name"), virtual_host
    return connection.hostname, connection.port, virtual_host


def lacks(channel: Any) -> str | None:
    """Return why the claiming transport cannot use a channel's server; None if it can.

    By HELLO, which each user may call: INFO is often forbidden (``-@dangerous``). And by a script: some servers forbid
    these, or have renamed their commands.
    """
    try:
        connection = channel.pool.get_connection()
        try:
            connection.send_command("HELLO")
            reply = connection.read_response()
            for command in ("EVAL", "return 1", 0), ("EVALSHA", "0" * 40, 0):
                with contextlib.suppress(NoScriptError):  # it looked for one, which is what it was asked
                    connection.send_command(*command)
                    connection.read_response()
        finally:
            channel.pool.release(connection)
    except ResponseError as error:
        if str(error).startswith(OUTAGE_ERRORS):
            raise RedisConnectionError(str(error)) from error
        return f"it does not tell its version, or runs no scripts: {error}"
    answered = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=False))
    named = {bytes_to_str(name): value for name, value in answered.items()}
    found = re.match(r"(\d+)\.(\d+)", bytes_to_str(named.get("version", "")))
    version = tuple(int(part) for part in found.groups()) if found else (0, 0)
    return None if version >= OLDEST else f"it is older than Redis {'.'.join(map(str, OLDEST))}"


def prefixed(channel: Any, key: str) -> str:
    """Return a key as it is stored in Redis: kombu's clients put ``global_keyprefix`` before it by themselves."""
    return f"{channel.global_keyprefix}{key}"


def queue_keys(channel: Any) -> list[tuple[str, str]]:
    """Return the lists to claim from, the most urgent first, each with its queue.

    Uses ``_queue_cycle`` and ``_q_for_pri``, as kombu's own BRPOP does. Without them, queues would starve, or messages
    with a priority would never be seen.
    """
    queues = channel._queue_cycle.consume(len(channel.active_queues))
    return [
        (prefixed(channel, channel._q_for_pri(queue, step)), queue)
        for step in channel.priority_steps
        for queue in queues
    ]


def lists_of(channel: Any, queue: str) -> list[str]:
    """Return a queue's lists, one for each priority."""
    return [prefixed(channel, channel._q_for_pri(queue, step)) for step in channel.priority_steps]


def rotate(channel: Any, queue: str) -> None:
    """Put a queue behind the others after it was claimed from."""
    channel._queue_cycle.rotate(queue)


def list_of(channel: Any, queue: str, message: dict[str, Any]) -> str:
    """Return the list that a message of a queue belongs in.

    Uses ``_get_message_priority`` and ``_q_for_pri``. Without them, a requeued message would lose its priority.
    """
    priority = channel._get_message_priority(message, reverse=False)
    return prefixed(channel, channel._q_for_pri(queue, priority))


def queues_of(channel: Any, exchange: str, routing_key: str) -> set[str]:
    """Return the queues that a message went to, by its exchange; none if the exchange is not known any more.

    Uses ``_lookup``, as kombu does when it restores a message. Without it, claims of workers with kombu's
    transport would not be requeued.
    """
    try:
        return set(channel._lookup(exchange, routing_key))
    except InconsistencyError:
        return set()


def hand_over(channel: Any, message: dict[str, Any], queue: str) -> None:
    """Give a message to the queue's consumer, as kombu's BRPOP does (``Transport._deliver``)."""
    channel.connection._deliver(message, queue)


def unacked_count(qos: Any) -> int:
    """Return how many unacknowledged messages the consumer has.

    Uses ``_delivered`` and ``_dirty``, which ``QoS.can_consume`` compares. Without them, a worker would take more than
    its prefetch count.
    """
    return len(qos._delivered) - len(qos._dirty)


def add_unacked(qos: Any, tag: str, message: Any) -> None:
    """Count a message as unacknowledged, without kombu's write to Redis, which the claim has done already."""
    virtual.QoS.append(qos, message, tag)


def is_unacked(qos: Any, tag: str) -> bool:
    """Return whether a message is counted as unacknowledged."""
    return tag in qos._delivered and tag not in qos._dirty


def remove_unacked(qos: Any, tag: str) -> None:
    """Stop counting a message as unacknowledged."""
    virtual.QoS.ack(qos, tag)


def remove_all_unacked(qos: Any, mine: Callable[[str], bool]) -> None:
    """Stop counting all messages of ours as unacknowledged; else kombu would requeue them when it closes."""
    qos._flush()
    for tag in [tag for tag in qos._delivered if mine(tag)]:
        qos._delivered.pop(tag, None)


def is_limited_by_others(qos: Any) -> bool:
    """Return whether other code has replaced ``can_consume``, as Celery's ``worker_disable_prefetch`` does."""
    return "can_consume" in vars(qos)


def open_tracking_connection(channel: Any, on_change: Callable[[], None]) -> Any:
    """Open a connection to the channel's server with push notices (RESP3).

    Uses ``connection_class`` and ``connection_kwargs`` of the channel's pool, for TLS, Sentinel, sockets and
    credentials, and redis-py's ``set_invalidation_push_handler``. Without that handler, an idle worker would not
    notice new messages before its next look, up to half a minute later.

    Args:
        channel: kombu's.
        on_change: called while replies are read, when one of the keys that were read over this connection has changed.

    Returns:
        redis-py's connection, connected.
    """
    pool = channel.pool
    connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})
    connection.connect()

    def on_push(push: Any) -> Any:
        on_change()
        return push

    connection._parser.set_invalidation_push_handler(on_push)
    return connection


def fileno(connection: Any) -> int | None:
    """Return the descriptor of a connection's socket; None if it has none (redis-py's ``_sock``)."""
    return None if connection._sock is None else connection._sock.fileno()


def close(connection: Any, *, forget: bool) -> None:
    """Close a connection.

    Args:
        connection: redis-py's.
        forget: drop commands that were sent and have not arrived (redis-py's ``_sock``). The kernel would go on
            sending it after the close, for as long as a network is away.
    """
    if forget and connection._sock is not None:
        with contextlib.suppress(OSError):  # closed at the other end
            connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection._sock.close()  # before redis-py's, which ends it gently first
    connection.disconnect()


def replies(connection: Any, count: int) -> list[Any]:
    """Read replies; an error of one command is returned as its reply, so that replies and commands stay in step."""
    found: list[Any] = []
    for _ in range(count):
        try:
            found.append(connection.read_response())
        except ResponseError as error:
            found.append(error)
    return found


def is_closing(channel: Any) -> bool:
    """Return whether a channel closes its pool's connections, or has: another thread may be reading from one of them.

    Reads kombu's ``_closing``, which is set before; ``closed`` is set after. Without it, the heartbeat's thread would
    end with an error of redis-py's parsers, which is none of redis-py's own.
    """
    return bool(channel.closed or channel._closing)


def is_wrong_type(error: ResponseError) -> bool:
    """Return whether a command found a key of another type; in a script's error, the word is inside the text."""
    return "WRONGTYPE" in str(error)


def read_notices(connection: Any) -> None:
    """Read push notices while no reply is awaited; each calls ``on_change``.

    Also those that came along with replies, for which the socket is not readable any more. Uses ``push_request``, with
    which redis-py returns after a push instead of waiting for a reply.
    """
    while connection.can_read(timeout=0):  # with TLS, what makes a socket readable need not be a word
        connection.read_response(push_request=True)


class LoopPoller(stock.MultiChannelPoller):
    """kombu's poller, without its BRPOP for channels that claim.

    Replaces ``_register_BRPOP``, which ``on_poll_start`` calls for each channel that consumes. Without it, kombu would
    pop messages off the same queues.
    """

    def _register_BRPOP(self, channel: Any) -> None:  # noqa: N802 - kombu's name
        if not channel.is_claiming:
            super()._register_BRPOP(channel)  # type: ignore[misc]  # its stubs name only public parts

"""Ask Redis whether it keeps messages (eviction, persistence), for its clock, and for its quarantine.

`doctor/examination` calls it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from signalbus import celery

if TYPE_CHECKING:
    from kombu import Connection


class RedisState(NamedTuple):
    """The state of a Redis.

    Args:
        policy: ``maxmemory-policy``.
        maxmemory: in bytes; 0: no limit.
        aof: whether the append-only file is on.
        fsync: ``appendfsync``; empty if this user may not ask.
        written: whether the last write to the append-only file succeeded.
        ahead: seconds that its clock is ahead of this machine's.
        quarantined: items of its queues that were no messages and are kept for people to look at, at most 100.
        quarantine: the list that they are kept in.
    """

    policy: str
    maxmemory: int
    aof: bool
    fsync: str
    written: bool
    ahead: float
    quarantined: int
    quarantine: str


def ask_redis() -> RedisState | None:
    """Return the state of the broker, if it is a Redis; nothing is changed.

    Raises:
        Exception: of redis-py or kombu, if the broker does not answer.
    """
    app = celery.get_app()
    with app.connection_for_read(transport_options=celery.transport_options(app)) as connection:
        return _ask(connection) if connection.transport.driver_type == "redis" else None


def _ask(connection: Connection) -> RedisState:
    from redis.exceptions import ResponseError  # noqa: PLC0415 - a host on another broker does without redis-py

    from signalbus.compat.redis_internals import prefixed  # noqa: PLC0415 - as above
    from signalbus.transport.unacked import QUARANTINE_LIST  # noqa: PLC0415 - as above

    channel: Any = connection.default_channel
    client = channel.client
    before = time.time()
    seconds, microseconds = client.time()
    here = (before + time.time()) / 2
    memory, persistence = client.info("memory"), client.info("persistence")
    try:
        fsync = client.config_get("appendfsync").get("appendfsync", "")
    except ResponseError:  # a managed Redis has no CONFIG, and a user may lack the right to it
        fsync = ""
    quarantine = prefixed(channel, QUARANTINE_LIST)
    try:
        quarantined = int(client.llen(QUARANTINE_LIST))
    except ResponseError:  # a key of another type, or a user without the right to it
        quarantined = 0
    return RedisState(
        policy=str(memory.get("maxmemory_policy", "noeviction")),
        maxmemory=int(memory.get("maxmemory", 0)),
        aof=bool(persistence.get("aof_enabled", 0)),
        fsync=str(fsync),
        written=persistence.get("aof_last_write_status", "ok") == "ok",
        ahead=seconds + microseconds / 1e6 - here,
        quarantined=quarantined,
        quarantine=quarantine,
    )

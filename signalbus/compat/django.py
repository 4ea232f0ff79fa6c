"""What we use of Django's private parts: each with what would break, and tests/unit/test_compat.py that notices it."""

from __future__ import annotations

from typing import Any

from django.db import connections

# What a child inherited. Kept for ever: a pool that is collected would wait for threads that no child has.
_forgotten: list[Any] = []


def close_pools() -> None:
    """Close the pools of database connections that this process has opened.

    Uses ``DatabaseWrapper._connection_pools``, a table of the class, because the public ``close_pool()`` would make the
    pool that it is to close. Without it, a worker's main process would keep the connections that its checks opened.
    """
    for pools in _pools():
        while pools:
            pools.popitem()[1].close()


def forget_pools() -> None:
    """Take the pools that a forked child inherited out of Django's sight, without touching their sockets.

    Uses ``DatabaseWrapper._connection_pools``. Without it, children would share the connections of their parent.
    """
    for pools in _pools():
        _forgotten.extend(pools.values())
        pools.clear()


def _pools() -> list[dict[str, Any]]:
    found = [getattr(connections[alias], "_connection_pools", None) for alias in connections]
    return [pools for pools in found if pools]

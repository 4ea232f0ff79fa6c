"""Assign each message of an ordered signal its position in the order of its key, at `send()` (decision 0036).

`recording` calls it in the sender's transaction. Each message takes the next position of its key, which locks the key
until the commit, so positions are in the order of commits on every database, and a rollback gives them back.
`attempts/ordering` reads the positions: it decides which delivery of a key may run.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db import connections

from signalbus.ledger.base.dialect import KEYS, dialect_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from signalbus.wire.message import Message

CHUNK = 250  # keys of one statement

NO_POSITION: Final = ("", 0)


def order_of(message: Message, receiver: str = "") -> str:
    """Return the digest of a message's ordering key that the ledger's rows hold.

    Args:
        message: a message of an ordered signal.
        receiver: the receiver of the deliveries; empty for the key's own row.
    """
    named = f"order\0{message.signal}\0{receiver}\0{message.ordering_key}"
    digest = blake2b(named.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return UUID(bytes=digest, version=5).hex  # MariaDB's ids must have a version


def assign_positions(messages: Iterable[Message], *, using: str) -> dict[UUID, int]:
    """Assign messages the next positions of their keys, which stay locked until the transaction ends.

    Args:
        messages: the messages in the order of their sending; those without a key get no position.
        using: the ledger's alias, in a transaction.

    Returns:
        The positions, by the ids of the messages that have a key.
    """
    by_key: dict[str, dict[UUID, None]] = {}
    for message in messages:
        if message.ordering_key is not None:
            by_key.setdefault(order_of(message), {})[message.id] = None  # once, however many parts
    positions: dict[UUID, int] = {}
    # Sorted: two that send for the same keys must not wait for each other in a circle.
    keys = sorted(by_key)
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        for key, last in _advance([(key, len(by_key[key])) for key in chunk], using).items():
            first = last - len(by_key[key]) + 1
            positions |= {message: first + index for index, message in enumerate(by_key[key])}
    return positions


def _advance(counts: Sequence[tuple[str, int]], using: str) -> dict[str, int]:
    """Advance keys by so many positions each, and return their last ones."""
    dialect = dialect_of(using)
    # A key that was purged after it had not been used for long begins anew, behind all that it ever had.
    base = time.time_ns() // 1000
    values = ", ".join([f"(%s, %s, {dialect.now})"] * len(counts))
    ids = [dialect.key(UUID(key)) for key, _ in counts]
    sql = f"INSERT INTO {KEYS} (id, position, used_at) VALUES {values} "
    if dialect.vendor == "mysql":
        sql += f"ON DUPLICATE KEY UPDATE position = {KEYS}.position + VALUES(position) - %s, used_at = VALUES(used_at)"
    else:
        sql += (
            f"ON CONFLICT (id) DO UPDATE SET position = {KEYS}.position + excluded.position - %s, "
            "used_at = excluded.used_at RETURNING id, position"
        )
    numbers = [base + count for _, count in counts]
    with connections[using].cursor() as cursor:
        cursor.execute(sql, [*(value for row in zip(ids, numbers, strict=True) for value in row), base])
        if dialect.vendor == "mysql":
            marks = ", ".join(["%s"] * len(ids))
            cursor.execute(f"SELECT id, position FROM {KEYS} WHERE id IN ({marks})", ids)
        return {_hex(id_): position for id_, position in cursor.fetchall()}


def _hex(value: Any) -> str:
    """Return an id in hex; drivers return a UUID, or its text."""
    return UUID(str(value)).hex

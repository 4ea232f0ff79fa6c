"""The rows of what is sent: written at send(), in the sender's transaction."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction

from signalbus.exceptions import PayloadError
from signalbus.ledger.dialect import DELIVERIES, MESSAGES, Dialect, dialect_for
from signalbus.ledger.ordering import NOWHERE, order_of, take_places
from signalbus.wire.message import delivery_id, to_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.wire.message import Message

WAIT = 10.0  # seconds after its publication that the sweeper first asks whether a delivery was lost
CHUNK = 250  # rows of one INSERT with a list of values


class Part(NamedTuple):
    """A message, or the part of it that goes through one queue, as it is recorded.

    Args:
        message: with the recipients of that queue.
        body: its text.
        queue: the Celery queue, or None for the default one.
        subject: what it is about.
    """

    message: Message
    body: str
    queue: str | None
    subject: str = ""


class _Insert(NamedTuple):
    """How rows of a table are written.

    Args:
        head: the statement up to the values.
        values: of a row, what varies as ``%s``.
        arrays: the statement that takes an array for each of those, where the database does.
    """

    head: str
    values: str
    arrays: str


@cache
def _inserts(dialect: Dialect, *, ordered: bool) -> tuple[_Insert, _Insert]:
    """Write the statements for messages and for deliveries."""
    due = dialect.later.replace("%s", str(WAIT))
    place = {"ordering_key": "text", "position": "bigint"} if ordered else {}
    return (
        _insert(
            dialect,
            MESSAGES,
            {"id": "uuid", "signal": "text", "text": "text", "subject": "text"},
            {"sealed": "false" if dialect.arrays else "0", "created_at": dialect.now},
        ),
        _insert(
            dialect,
            DELIVERIES,
            {"id": "uuid", "message_id": "uuid", "receiver": "text", "queue": "text", **place},
            {
                **dict.fromkeys(["attempts", "allowance", "publications"], "0"),
                **dict.fromkeys(["error", "traceback", "worker"], "''"),
                "state": "'published'",
                "due_at": due,
                "created_at": dialect.now,
            },
        ),
    )


def _insert(dialect: Dialect, table: str, varying: dict[str, str], same: dict[str, str]) -> _Insert:
    columns = ", ".join(f"{dialect.quote}{name}{dialect.quote}" for name in (*varying, *same))
    head = f"INSERT INTO {table} ({columns}) "
    arrays = ", ".join(f"%s::{kind}[]" for kind in varying.values())
    values = ", ".join([*["%s"] * len(varying), *same.values()])
    return _Insert(
        f"{head}VALUES ",
        f"({values})",
        f"{head}SELECT rows.*, {', '.join(same.values())} FROM unnest({arrays}) AS rows",
    )


def record(parts: Sequence[Part], *, using: str) -> None:
    """Write the rows of messages that are about to be published: one for each message, one for each recipient.

    They are written as published, so that nothing is left to do after the commit; a publication that never came is
    found as one that was lost.

    Args:
        parts: the messages.
        using: the ledger's alias; its transaction, if one is open, decides over the rows.
    """
    connection = connections[using]
    dialect = dialect_for(connection)
    messages, deliveries = _rows(parts, dialect)
    ordered = any(part.message.ordering_key is not None for part in parts)
    inserts = _inserts(dialect, ordered=ordered)
    together: contextlib.AbstractContextManager[Any]
    if dialect.arrays and not ordered:
        together = contextlib.nullcontext()
    elif connection.in_atomic_block:
        together = transaction.mark_for_rollback_on_error(using=using)  # what an atomic() block would do, for less
    else:
        together = transaction.atomic(using=using)
    with together, connection.cursor() as cursor:
        if ordered:
            deliveries = _placed(deliveries, parts, using)
        if dialect.arrays:
            # One round trip, however many.
            sql = f"WITH sent AS ({inserts[0].arrays}) {inserts[1].arrays}"
            cursor.execute(sql, [list(column) for rows in (messages, deliveries) for column in zip(*rows, strict=True)])
            return
        for insert, rows in zip(inserts, (messages, deliveries), strict=True):
            for start in range(0, len(rows), CHUNK):
                chunk = rows[start : start + CHUNK]
                values = ", ".join([insert.values] * len(chunk))
                cursor.execute(insert.head + values, [value for row in chunk for value in row])


def _placed(deliveries: Sequence[tuple[Any, ...]], parts: Sequence[Part], using: str) -> list[tuple[Any, ...]]:
    """Add their places to rows, in the parts' order."""
    messages = [part.message for part in parts]
    positions = take_places(messages, using=using)
    places = [
        (order_of(message, receiver), positions[message.id]) if message.id in positions else NOWHERE
        for message in messages
        for receiver in (("",) if message.recipients is None else message.recipients)
    ]
    return [(*row, *place) for row, place in zip(deliveries, places, strict=True)]


def _rows(parts: Sequence[Part], dialect: Dialect) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    messages: dict[Any, tuple[Any, ...]] = {}
    deliveries: list[tuple[Any, ...]] = []
    whole: Message | None = None  # of the last part; the parts of a message follow each other
    for part in parts:
        message = part.message
        key = dialect.key(message.id)
        if whole is None or whole.id != message.id:
            whole, body = message, part.body
        else:
            whole, body = _together(whole, message, messages[key][2])
        messages[key] = (key, message.signal, body, part.subject)
        recipients = ("",) if message.recipients is None else message.recipients
        deliveries += [
            (dialect.key(delivery_id(message.id, recipient)), key, recipient, part.queue or "")
            for recipient in recipients
        ]
    return list(messages.values()), deliveries


def _together(whole: Message, part: Message, body: str) -> tuple[Message, str]:
    """Let a message's row name all whom it is for, so that an audit can tell whose rows are missing."""
    whole = replace(whole, recipients=(*(whole.recipients or ()), *(part.recipients or ())))
    try:
        return whole, to_body(whole)
    except PayloadError:  # a header beyond all measure: each part fits by itself, and is what travels
        return whole, body

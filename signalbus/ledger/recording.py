"""The rows of what is sent: written at send(), in the sender's transaction."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction

from signalbus.exceptions import PayloadError
from signalbus.ledger.dialect import DELIVERIES, MESSAGES, Dialect, dialect_of
from signalbus.ledger.ordering import NOWHERE, order_of, take_places
from signalbus.wire.message import delivery_id, to_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.wire.message import Message

WAIT = 10.0  # seconds after its publication that the sweeper first asks whether a delivery was lost
CHUNK = 250  # rows of one INSERT with a list of values

MESSAGE_COLUMNS = "id, signal, text, sealed, subject, created_at"
DELIVERY_COLUMNS = (
    "id, message_id, receiver, queue, state, attempts, allowance, publications, due_at, error, traceback, created_at, "
    "worker"
)


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


class _Statements(NamedTuple):
    message: str  # the values of a row
    delivery: str
    head: str
    tail: str


@cache
def _statements(dialect: Dialect, *, ordered: bool) -> _Statements:
    due = dialect.later.replace("%s", str(WAIT))
    columns, place = (", ordering_key, position", ", %s, %s") if ordered else ("", "")
    unsealed = "false" if dialect.vendor == "postgresql" else "0"
    return _Statements(
        message=f"(%s, %s, %s, {unsealed}, %s, {dialect.now})",
        delivery=f"(%s, %s, %s, %s, 'published', 0, 0, 0, {due}, '', '', {dialect.now}, ''{place})",
        head=f"INSERT INTO {MESSAGES} ({MESSAGE_COLUMNS}) VALUES ",
        tail=f"INSERT INTO {DELIVERIES} ({DELIVERY_COLUMNS}{columns}) VALUES ",
    )


def record(parts: Sequence[Part], *, using: str) -> None:
    """Write the rows of messages that are about to be published: one for each message, one for each recipient.

    They are written as published, so that nothing is left to do after the commit; a publication that never came is
    found as one that was lost.

    Args:
        parts: the messages.
        using: the ledger's alias; its transaction, if one is open, decides over the rows.
    """
    dialect = dialect_of(using)
    messages, deliveries = _rows(parts, dialect)
    ordered = any(part.message.ordering_key is not None for part in parts)
    statements = _statements(dialect, ordered=ordered)
    one = dialect.vendor == "postgresql" and len(deliveries) <= CHUNK
    together = contextlib.nullcontext() if one and not ordered else transaction.atomic(using=using, savepoint=False)
    with together, connections[using].cursor() as cursor:
        if ordered:
            deliveries = _placed(deliveries, parts, using)
        if one:
            # One round trip.
            sql = (
                f"WITH sent AS ({statements.head}{_list(statements.message, messages)}) "
                f"{statements.tail}{_list(statements.delivery, deliveries)}"
            )
            cursor.execute(sql, [value for row in (*messages, *deliveries) for value in row])
            return
        for head, values, rows in (
            (statements.head, statements.message, messages),
            (statements.tail, statements.delivery, deliveries),
        ):
            for start in range(0, len(rows), CHUNK):
                chunk = rows[start : start + CHUNK]
                cursor.execute(head + _list(values, chunk), [value for row in chunk for value in row])


def _list(values: str, rows: Sequence[Any]) -> str:
    return ", ".join([values] * len(rows))


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

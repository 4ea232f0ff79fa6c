"""Insert the rows of sent messages and their deliveries, in the sender's transaction (decision 0024).

`sending/outbox` calls `record`, once for all messages that it hands over. Rows that are made later, for messages of
signals that are not durable, are inserted by `deliveries`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from django.db import transaction

from signalbus.compat.django_internals import connection_to
from signalbus.exceptions import PayloadError
from signalbus.ledger.base.dialect import DELIVERIES, MESSAGES, Dialect, dialect_for, takes_several
from signalbus.ledger.base.sequence_numbers import NO_POSITION, assign_positions, order_of
from signalbus.wire.message import delivery_hex, from_body, to_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.wire.message import Message

Statement = tuple[str, "Sequence[Any]"]  # with its values

WAIT = 10.0  # seconds after its publication that the sweeper first asks whether a delivery was lost
CHUNK = 140  # rows of one INSERT with a list of values, seven each at most: SQLite before 3.32 takes 999 values
FEW = 10  # deliveries up to which single values are quicker than arrays
RESERVED = frozenset({"signal"})  # words among the columns, to be quoted; quotes around all make a longer statement


class Recordable(Protocol):
    """A message, or the part of it for one queue, that can be recorded."""

    @property
    def key(self) -> str:
        """The message's id, in hex."""

    @property
    def signal(self) -> str:
        """The signal's name."""

    @property
    def recipients(self) -> tuple[str, ...] | None:
        """The ids of the receivers on that queue; None for an open signal."""

    @property
    def queue(self) -> str | None:
        """The Celery queue, or None for the default one."""

    @property
    def body(self) -> str:
        """Its text."""

    @property
    def subject(self) -> str:
        """Label and key of its ``instance``, or of the first row that it names."""

    @property
    def more_subjects(self) -> str | None:
        """Label and key of more rows that it names, a line each; None if there are none."""

    @property
    def root(self) -> str | None:
        """The id of the message that its cascade began with, in hex; None if that is this one."""

    @property
    def ordering_key(self) -> str | None:
        """Its ordering key, if its signal is ordered."""

    @property
    def message(self) -> Message:
        """The message, with the recipients of that queue."""


class Part(NamedTuple):
    """A message, or a part of it, to be recorded unchanged.

    Args:
        message: the message with the recipients of its queue.
        body: its text.
        queue: the Celery queue, or None for the default one.
        subject: label and key of its ``instance``.
        more_subjects: label and key of more rows that it names, a line each.
    """

    message: Message
    body: str
    queue: str | None
    subject: str = ""
    more_subjects: str | None = None

    @property
    def root(self) -> str | None:
        """The root of its cascade, in hex; None if that is this message."""
        return None if self.message.root == self.message.id else self.message.root.hex

    @property
    def key(self) -> str:
        """The message's id, in hex."""
        return self.message.id.hex

    @property
    def signal(self) -> str:
        """The signal's name."""
        return self.message.signal

    @property
    def recipients(self) -> tuple[str, ...] | None:
        """The receivers' ids; None for an open signal."""
        return self.message.recipients

    @property
    def ordering_key(self) -> str | None:
        """Its ordering key, if its signal is ordered."""
        return self.message.ordering_key


class DueTime(NamedTuple):
    """The time at which recorded deliveries are due, as SQL.

    Args:
        sql: the expression, with ``%s`` for each value.
        values: the values, as the driver takes them.
    """

    sql: str
    values: tuple[Any, ...]

    @classmethod
    def at(cls, when: timedelta | datetime, dialect: Dialect) -> DueTime:
        """Return a time from the database's now, or an aware one; the columns of most databases hold naive UTC."""
        if isinstance(when, timedelta):
            return cls(dialect.later, (when.total_seconds(),))
        if dialect.vendor == "postgresql":
            return cls("%s", (when,))
        return cls("%s", (when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),))


class _Insert(NamedTuple):
    """The INSERT statement of a table.

    Args:
        one: the statement for a row.
        head: the statement up to the values.
        values: the values of a row, with ``%s`` for those that vary.
        arrays: the statement that takes an array for each of those, if the database supports it.
    """

    one: str
    head: str
    values: str
    arrays: str

    def of(self, count: int) -> str:
        """Return the statement for so many rows."""
        return self.one if count == 1 else self.head + ", ".join([self.values] * count)


@cache
def _inserts(
    dialect: Dialect, *, ordered: bool, has_root: bool = False, has_more: bool = False, due: str | None = None
) -> tuple[_Insert, _Insert]:
    """Return the statements for messages and for deliveries that are published now, or are due at a time.

    The columns of migration 0008 are named only where a message has them: most have not, and a data migration may send
    a message before 0008 is applied.
    """
    state, when = ("published", dialect.later.replace("%s", str(WAIT))) if due is None else ("pending", due)
    columns = {"ordering_key": "text", "position": "bigint"} if ordered else {}
    links = {**({"root": "uuid"} if has_root else {}), **({"more_subjects": "text"} if has_more else {})}
    return (
        _insert(
            dialect,
            MESSAGES,
            {"id": "uuid", "signal": "text", "text": "text", "subject": "text", **links},
            {"sealed": "false" if dialect.arrays else "0", "created_at": dialect.now},
        ),
        _insert(
            dialect,
            DELIVERIES,
            {"id": "uuid", "message_id": "uuid", "receiver": "text", "queue": "text", **columns},
            {
                **dict.fromkeys(["attempts", "allowance", "publications"], "0"),
                **dict.fromkeys(["error", "traceback", "worker"], "''"),
                "state": f"'{state}'",
                "due_at": when,
                "created_at": dialect.now,
            },
        ),
    )


def _insert(dialect: Dialect, table: str, varying: dict[str, str], same: dict[str, str]) -> _Insert:
    quote = dialect.quote
    columns = ", ".join(f"{quote}{name}{quote}" if name in RESERVED else name for name in (*varying, *same))
    head = f"INSERT INTO {table} ({columns}) "
    arrays = ", ".join(f"%s::{kind}[]" for kind in varying.values())
    values = ", ".join([*["%s"] * len(varying), *same.values()])
    return _Insert(
        f"{head}VALUES ({values})",
        f"{head}VALUES ",
        f"({values})",
        f"{head}SELECT rows.*, {', '.join(same.values())} FROM unnest({arrays}) AS rows",
    )


def record(
    parts: Sequence[Recordable],
    *,
    using: str,
    due: timedelta | datetime | DueTime | None = None,
    first: Sequence[Statement] = (),
) -> None:
    """Record the rows of messages: one for each message, one for each recipient.

    Messages that are about to be published are recorded as published, so that no statement is needed after the commit;
    a publication that did not happen is found as a lost one.

    Args:
        parts: the messages.
        using: the ledger's alias; the rows are part of its transaction, if one is open.
        due: when they are due, if they wait: a delay from now, or an aware time.
        first: statements to execute before, in the same transaction.
    """
    connection = connection_to(using)
    dialect = dialect_for(connection)
    ordered = has_root = has_more = False
    for part in parts:  # which is quicker than any() for the one message that there nearly always is
        ordered = ordered or part.ordering_key is not None
        has_root = has_root or part.root is not None
        has_more = has_more or part.more_subjects is not None
    rows = _rows(parts, has_root=has_root, has_more=has_more)
    if due is not None and not isinstance(due, DueTime):
        due = DueTime.at(due, dialect)
    when = None if due is None else due.sql
    inserts = _inserts(dialect, ordered=ordered, has_root=has_root, has_more=has_more, due=when)
    if not ordered:
        statements = _together([*first, *_insertions(dialect, inserts, rows, due)], connection)
        _in_transaction(partial(_execute, connection, statements), connection, needed=len(statements) > 1)
        return

    def record_ordered() -> None:
        messages, deliveries = rows
        with_positions = (messages, _with_positions(deliveries, parts, using))
        _execute(connection, [*first, *_insertions(dialect, inserts, with_positions, due)])

    _in_transaction(record_ordered, connection, needed=True)


def _execute(connection: BaseDatabaseWrapper, statements: Iterable[Statement]) -> None:
    with connection.cursor() as cursor:
        for sql, values in statements:
            cursor.execute(sql, values)


def _in_transaction(execute: Callable[[], None], connection: BaseDatabaseWrapper, *, needed: bool) -> None:
    if connection.in_atomic_block:
        try:
            execute()
        except Exception:
            # The effect of an atomic() block, for less. A single statement needs it as well: a caller that catches its
            # error would else commit what PostgreSQL silently rolls back, and publish what it sent before.
            with transaction.mark_for_rollback_on_error(using=connection.alias):
                raise
    elif needed:
        with transaction.atomic(using=connection.alias):
            execute()
    else:
        execute()


def _together(statements: list[Statement], connection: BaseDatabaseWrapper) -> list[Statement]:
    """Join statements, if the database takes several at once: in one round trip, in one transaction."""
    if len(statements) == 1 or not takes_several(connection):
        return statements
    return [("; ".join(sql for sql, _ in statements), [value for _, values in statements for value in values])]


Rows = tuple["Sequence[tuple[Any, ...]]", "Sequence[tuple[Any, ...]]"]  # of messages, and of deliveries


def _insertions(dialect: Dialect, inserts: tuple[_Insert, _Insert], rows: Rows, due: DueTime | None) -> list[Statement]:
    messages, deliveries = rows
    if due is not None:
        deliveries = [(*row, *due.values) for row in deliveries]
    if dialect.arrays:
        return [_at_once(inserts, (messages, deliveries), arrays=len(deliveries) > FEW and due is None)]
    statements: list[Statement] = []
    for insert, each in ((inserts[0], messages), (inserts[1], deliveries)):
        for start in range(0, len(each), CHUNK):
            chunk = each[start : start + CHUNK]
            values = chunk[0] if len(chunk) == 1 else list(chain.from_iterable(chunk))
            statements.append((insert.of(len(chunk)), values))
    return statements


def _at_once(inserts: tuple[_Insert, _Insert], tables: Rows, *, arrays: bool) -> Statement:
    """Return one statement for all rows of messages and deliveries: it takes one round trip.

    For few rows single values are quicker, because psycopg and the server know their statement.
    """
    messages, deliveries = tables
    if not arrays:
        return _both(inserts, len(messages), len(deliveries)), [*chain.from_iterable(chain(messages, deliveries))]
    columns = chain(zip(*messages, strict=True), zip(*deliveries, strict=True))
    return f"WITH sent AS ({inserts[0].arrays}) {inserts[1].arrays}", [_array(column) for column in columns]


@cache
def _both(inserts: tuple[_Insert, _Insert], messages: int, deliveries: int) -> str:
    """Return the statement for so many rows of each table; it is cached, since single values are for few rows only."""
    return f"WITH sent AS ({inserts[0].of(messages)}) {inserts[1].of(deliveries)}"


def _array(column: Sequence[Any]) -> str:
    """Return a column as PostgreSQL reads an array: psycopg, with an adapter for each value, takes 5 times as long."""
    quoted = ("NULL" if value is None else _quoted(value) for value in column)
    return f"{{{','.join(quoted)}}}"


def _quoted(value: Any) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _with_positions(
    deliveries: Sequence[tuple[Any, ...]], parts: Sequence[Recordable], using: str
) -> list[tuple[Any, ...]]:
    """Add the ordering key and the position to rows, in the parts' order."""
    messages = [part.message for part in parts]
    positions = assign_positions(messages, using=using)
    order_columns = [
        (order_of(message, receiver), positions[message.id]) if message.id in positions else NO_POSITION
        for message in messages
        for receiver in (("",) if message.recipients is None else message.recipients)
    ]
    return [(*row, *columns) for row, columns in zip(deliveries, order_columns, strict=True)]


def _rows(
    parts: Sequence[Recordable], *, has_root: bool, has_more: bool
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the values of the rows; ids are in hex, as all databases take them."""
    messages: dict[str, tuple[Any, ...]] = {}
    deliveries: list[tuple[Any, ...]] = []
    whole: Message | None = None  # of the last part, where several parts follow each other
    for part in parts:
        key, body = part.key, part.body
        known = messages.get(key)
        if known is None:
            whole = None
        else:
            whole, body = _merged(whole or from_body(known[2]), part.message, known[2])
        row: tuple[Any, ...] = (key, part.signal, body, part.subject)
        if has_root:
            row += (part.root,)
        if has_more:
            row += (part.more_subjects,)
        messages[key] = row
        queue = part.queue or ""
        recipients = ("",) if part.recipients is None else part.recipients
        deliveries += [(delivery_hex(key, recipient), key, recipient, queue) for recipient in recipients]
    return list(messages.values()), deliveries


def _merged(whole: Message, part: Message, body: str) -> tuple[Message, str]:
    """Merge the recipients of a message's parts in its row, so that an audit can find missing rows."""
    whole = whole.for_recipients([*(whole.recipients or ()), *(part.recipients or ())])
    try:
        return whole, to_body(whole)
    except PayloadError:  # a header beyond all measure: each part fits by itself, and is what travels
        return whole, body

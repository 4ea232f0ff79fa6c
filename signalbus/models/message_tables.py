"""Define the tables of messages, of their deliveries, of the state of each queue, and of the keys to lock.

`ledger/` alone reads and writes them.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models
from django.db.models import Q

from signalbus.core.printable_text import printable
from signalbus.models.states import CLOSED_STATES, DUE_STATES, LOOKED_UP_STATES, TAKEN_STATES, State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from django.db.models.expressions import Combinable

PREFIX_CHARS = 100  # of a text, in an index of MySQL and MariaDB
SHOWN_CHARS = 200  # of a name, where a row is named
NO_STATEMENT = "DO 0"  # of MySQL and MariaDB


class TextIndex(models.Index):
    """An index of a text column, of which MySQL and MariaDB index the beginning."""

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        """Return the SQL; MySQL has no index of a text without a length, and none of some rows alone."""
        if schema_editor.connection.vendor != "mysql":
            return super().create_sql(model, schema_editor, using, **kwargs)
        quote, meta = schema_editor.quote_name, model._meta  # noqa: SLF001 - Django documents it
        columns = ", ".join(f"{quote(meta.get_field(name).column)}({PREFIX_CHARS})" for name in self.fields)
        return f"CREATE INDEX {quote(self.name)} ON {quote(meta.db_table)} ({columns})"


class IndexOfSome(models.Index):
    """An index of some rows alone, which MySQL and MariaDB do not have: they would index all of them."""

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        """Return the SQL; on MySQL and MariaDB a statement that does nothing."""
        if schema_editor.connection.vendor == "mysql":
            return NO_STATEMENT
        return super().create_sql(model, schema_editor, using, **kwargs)

    def remove_sql(self, model: Any, schema_editor: Any, **kwargs: Any) -> Any:
        """Return the SQL; on MySQL and MariaDB a statement that does nothing."""
        if schema_editor.connection.vendor == "mysql":
            return NO_STATEMENT
        return super().remove_sql(model, schema_editor, **kwargs)


def _any_of(states: Iterable[State]) -> Q:
    return reduce(or_, [Q(state=state) for state in states])


class StoredMessage(models.Model):
    """A message: one send of a signal, as it is published. Its row never changes: the states are its deliveries'."""

    id: models.UUIDField[UUID | str, UUID] = models.UUIDField(primary_key=True)
    # Texts without a limit: any name of a signal or a receiver must fit, however long.
    signal: models.TextField[str, str] = models.TextField(blank=True, help_text="empty while the text cannot be opened")
    text: models.TextField[str, str] = models.TextField(
        help_text="the body, to be signed when published; the whole text as it came if it is sealed"
    )
    sealed: models.BooleanField[bool, bool] = models.BooleanField(
        default=False, help_text="a text that this side has not verified, and must never sign"
    )
    subject: models.TextField[str, str] = models.TextField(
        db_default="", default="", blank=True, help_text="what it is about: label and key"
    )
    # NULL for nearly all: a send writes the two only where it has them, and SQLite adds them without copying the table.
    more_subjects: models.TextField[str | None, str | None] = models.TextField(  # noqa: DJ001 - see above
        null=True, blank=True, help_text="up to seven more rows that it names, a line each"
    )
    root: models.UUIDField[UUID | str | None, UUID | None] = models.UUIDField(
        null=True,
        help_text="the first message of its cascade; NULL for that itself, and for what older versions sent",
    )
    created_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()

    class Meta:
        db_table = "signalbus_message"
        verbose_name = "message"
        indexes: ClassVar[list[models.Index]] = [
            TextIndex(fields=["subject"], name="signalbus_subject", condition=~Q(subject="")),
            # The parts of a cascade. Most messages are sent by no receiver, and are not in it.
            models.Index(fields=["root"], name="signalbus_cascade", condition=Q(root__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{printable(self.signal, SHOWN_CHARS) or 'unopened text'} {self.pk}"


class Delivery(models.Model):
    """One message to one receiver: its attempts and its outcome.

    The columns with a default in the database are younger than 0.1, whose workers insert rows without them.
    """

    id: models.UUIDField[UUID | str, UUID] = models.UUIDField(
        primary_key=True, help_text="follows from the message and the receiver: the idempotency key"
    )
    # No constraint: it would cost a fifth of the insert, and a lock on the message. All deletions delete both.
    message: models.ForeignKey[StoredMessage, StoredMessage] = models.ForeignKey(
        StoredMessage, on_delete=models.CASCADE, related_name="deliveries", db_constraint=False
    )
    receiver: models.TextField[str, str] = models.TextField(
        blank=True, help_text="empty: the whole message, its recipients unknown"
    )
    # As long as a queue's name may be; part of an index, for which MySQL takes no text without a limit.
    queue: models.CharField[str, str] = models.CharField(
        max_length=255, blank=True, help_text="empty: the default queue"
    )
    state: models.CharField[str, str] = models.CharField(max_length=10, choices=State, default=State.PENDING)
    attempts: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(default=0)
    allowance: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(
        default=0, help_text="attempts made before the last retry by hand"
    )
    publications: models.PositiveSmallIntegerField[int | Combinable, int] = models.PositiveSmallIntegerField(
        db_default=0, default=0, help_text="how often it was published again because it was lost"
    )
    due_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField(
        help_text="when the sweeper looks at it next"
    )
    ordering_key: models.CharField[str, str] = models.CharField(
        max_length=32,
        db_default="",
        default="",
        blank=True,
        help_text="follows from signal, receiver and key; with one, one at a time, by position",
    )
    position: models.BigIntegerField[int, int] = models.BigIntegerField(
        db_default=0, default=0, help_text="in the order of its key's commits"
    )
    parked_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, help_text="since when it has been unknown"
    )
    # Not `error`, which tells of the last attempt. NULL, not "", as below.
    held_reason: models.TextField[str | None, str | None] = models.TextField(  # noqa: DJ001 - see above
        null=True, blank=True, help_text="why it was held the last time"
    )
    error: models.TextField[str, str] = models.TextField(blank=True)
    traceback: models.TextField[str, str] = models.TextField(blank=True)
    failed_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(null=True)
    created_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()
    started_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(null=True)
    ended_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(null=True)
    runtime_ms: models.PositiveIntegerField[int | None, int | None] = models.PositiveIntegerField(
        null=True, help_text="of a run that failed, or took 10 ms and more"
    )
    worker: models.TextField[str, str] = models.TextField(db_default="", default="", blank=True)
    # NULL, not "": so SQLite adds it without copying the table.
    admitted_by: models.TextField[str | None, str | None] = models.TextField(  # noqa: DJ001 - see above
        null=True, help_text="the worker whose sweeper published it for a retry"
    )

    # NULL while its last attempt did not fail; `core/error_groups.py` computes it.
    error_group: models.CharField[str | None, str | None] = models.CharField(  # noqa: DJ001 - see above
        max_length=16, null=True, blank=True, help_text="the same for failures of one cause"
    )

    class Meta:
        verbose_name_plural = "deliveries"
        permissions: ClassVar[list[tuple[str, Any]]] = [
            ("view_payload", "Can see the payloads of messages"),
            ("operate_delivery", "Can retry and discard deliveries, pause and resume receivers"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            # The sweeper's query of each second, and its purge. SQLite uses the second only as it is written here:
            # for "IS NOT NULL", which a comparison implies, and not for "NOT (… IS NULL)".
            models.Index(fields=["state", "queue", "due_at"], name="signalbus_open", condition=Q(ended_at=None)),
            # The due rows, in their order: rows that are due later are never read, however many they are. With ORs: for
            # an IN of more than two values SQLite builds a table, for each row that it writes.
            models.Index(fields=["due_at"], name="signalbus_waiting", condition=_any_of(DUE_STATES)),
            models.Index(fields=["ended_at"], name="signalbus_over", condition=Q(ended_at__isnull=False)),
            # The head of an ordering key.
            models.Index(
                fields=["ordering_key", "position"],
                name="signalbus_order",
                condition=~Q(ordering_key="") & ~Q(state__in=CLOSED_STATES),
            ),
            # The retries that are on their way: few, whatever waits.
            models.Index(
                fields=["due_at"],
                name="signalbus_admitted",
                condition=Q(admitted_by__isnull=False) & Q(state__in=TAKEN_STATES),
            ),
            # The failures of one cause, and those of all causes, the youngest first: a delivery that did not fail is
            # in neither.
            models.Index(fields=["error_group", "id"], name="signalbus_cause", condition=Q(error_group__isnull=False)),
            IndexOfSome(fields=["id"], name="signalbus_failures", condition=Q(error_group__isnull=False)),
            # What people look for among all that has ended; what is done is not in it. With ORs as well: SQLite would
            # not use an IN for one state.
            models.Index(
                fields=["state", "id"],
                name="signalbus_found",
                condition=_any_of(LOOKED_UP_STATES),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.message_id} to {printable(self.receiver, SHOWN_CHARS) or 'whom it names'}: {self.state}"


class QueueState(models.Model):
    """The state of a queue: messages that were published before a marker that came back have left it."""

    # MySQL has no TEXT keys.
    queue: models.CharField[str, str] = models.CharField(max_length=255, primary_key=True)
    marked_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, help_text="when the last marker was sent"
    )
    returned_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, help_text="when the last marker that came back had been sent"
    )
    seen_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, help_text="when it came back"
    )
    proven_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, help_text="what was published before is on no queue, and with no worker that would still run it"
    )

    class Meta:
        db_table = "signalbus_lane"  # its name since 0003; workers of earlier versions use it

    def __str__(self) -> str:
        return self.queue or "the default queue"


class Key(models.Model):
    """A row to lock, for an ordering key, or for the key of deduplicated messages."""

    id: models.UUIDField[UUID | str, UUID] = models.UUIDField(
        primary_key=True, help_text="follows from the signal, the sender and the key"
    )
    position: models.BigIntegerField[int, int] = models.BigIntegerField(
        db_default=0, default=0, help_text="of the last delivery in its order"
    )
    message: models.UUIDField[UUID | None, UUID | None] = models.UUIDField(
        null=True, help_text="the message that stands for equal ones while it waits"
    )
    since: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, help_text="when the burst began that is being waited out"
    )
    used_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return str(self.pk)

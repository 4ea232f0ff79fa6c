"""Define the tables of the ledger: messages, their deliveries, the state of each queue, and the keys to lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from django.db import models
from django.db.models import Q

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from django.db.models.expressions import Combinable


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
    created_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()

    class Meta:
        db_table = "signalbus_message"
        verbose_name = "message"

    def __str__(self) -> str:
        return f"{self.signal or 'unopened text'} {self.pk}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that hold for every delivery in a state.

    Args:
        means: its description in `manage.py signalbus failed`.
        is_open: it has not ended.
        is_due: the sweeper publishes it when it is due.
        is_taken: it is on its way to a worker, or in flight.
        is_waiting: no worker has claimed it, so it can be cancelled, postponed or parked; `audit` counts it as waiting.
        is_closed: it has ended for good; a dead one waits for a person.
    """

    means: str
    is_open: bool = False
    is_due: bool = False
    is_taken: bool = False
    is_waiting: bool = False
    is_closed: bool = False


class State(models.TextChoices):
    """The state of a delivery, with the facts that all code decides by.

    A state that is new, or that becomes due, taken or closed, changes an index and the field's choices: it needs a
    migration, and a row in the table of docs/operating.md.
    """

    facts: Facts

    # PENDING waits for its time, or for a broker. PARKED is unknown to the worker that met it, and is published again
    # for a day. HELD waits because a gate says so, until its time or until it is released. PUBLISHED is published again
    # when a marker proves it lost, RUNNING when its claim is overdue.
    PENDING = "pending", Facts(means="published when it is due", is_open=True, is_due=True, is_waiting=True)
    PARKED = "parked", Facts(means="unknown to the workers; tried again", is_open=True, is_due=True, is_waiting=True)
    HELD = "held", Facts(means="may not run yet; published when it is due", is_open=True, is_due=True, is_waiting=True)
    PUBLISHED = "published", Facts(means="on its way to a worker", is_open=True, is_taken=True, is_waiting=True)
    RUNNING = "running", Facts(means="running now", is_open=True, is_due=True, is_taken=True)
    DONE = "done", Facts(means="done", is_closed=True)
    SKIPPED = "skipped", Facts(means="skipped: its row was not found, or nobody received it", is_closed=True)
    DEAD = "dead", Facts(means="dead: retry or discard it")
    DISCARDED = "discarded", Facts(means="discarded", is_closed=True)

    if not TYPE_CHECKING:  # a type checker would take it for what State("dead") calls

        def __new__(cls, value: str, facts: Facts) -> Self:
            """Make a member whose value is the text alone."""
            state = str.__new__(cls, value)
            state._value_ = value
            state.facts = facts
            return state

    @property
    def word(self) -> str:
        """The name of the state in an `audit`: waiting, or its own name."""
        return "waiting" if self.facts.is_waiting else self.value


# In the order of the members, which is that of the indexes' conditions.
OPEN_STATES = tuple(state for state in State if state.facts.is_open)
DUE_STATES = tuple(state for state in State if state.facts.is_due)
TAKEN_STATES = tuple(state for state in State if state.facts.is_taken)
WAITING_STATES = tuple(state for state in State if state.facts.is_waiting)
CLOSED_STATES = tuple(state for state in State if state.facts.is_closed)


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

    class Meta:
        verbose_name_plural = "deliveries"
        indexes: ClassVar[list[models.Index]] = [
            # The sweeper's query of each second, and its purge. SQLite uses the second only as it is written here:
            # for "IS NOT NULL", which a comparison implies, and not for "NOT (… IS NULL)".
            models.Index(fields=["state", "queue", "due_at"], name="signalbus_open", condition=Q(ended_at=None)),
            # The due rows, in their order: rows that are due later are never read, however many they are.
            models.Index(fields=["due_at"], name="signalbus_waiting", condition=Q(state__in=DUE_STATES)),
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
        ]

    def __str__(self) -> str:
        return f"{self.message_id} to {self.receiver or 'whom it names'}: {self.state}"


class Lane(models.Model):
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

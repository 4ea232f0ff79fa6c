"""The tables of the ledger: messages, and their deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import models

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from django.db.models.expressions import Combinable


class StoredMessage(models.Model):
    """One sending of a signal, as it travels. It is written once: what changes stands in its deliveries."""

    id: models.UUIDField[UUID | str, UUID] = models.UUIDField(primary_key=True)
    # Texts without a limit: what a key holder called a signal or a receiver must fit, however long.
    signal: models.TextField[str, str] = models.TextField(blank=True, help_text="empty while the text cannot be opened")
    text: models.TextField[str, str] = models.TextField(
        help_text="the body, to be signed when published; the whole text as it came if it is sealed"
    )
    sealed: models.BooleanField[bool, bool] = models.BooleanField(
        default=False, help_text="a text that this side has not verified, and must never sign"
    )
    created_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()

    class Meta:
        db_table = "signalbus_message"
        verbose_name = "message"

    def __str__(self) -> str:
        return f"{self.signal or 'unopened text'} {self.pk}"


class State(models.TextChoices):
    """Where a delivery stands."""

    PENDING = "pending"  # to be published when it is due
    PARKED = "parked"  # unknown to the worker that met it; published again when it is due, for a day
    PUBLISHED = "published"  # on its way; published again when it is overdue
    RUNNING = "running"  # claimed; published again when its claim is overdue
    DONE = "done"
    SKIPPED = "skipped"
    DEAD = "dead"
    DISCARDED = "discarded"


OPEN_STATES = (State.PENDING, State.PARKED, State.PUBLISHED, State.RUNNING)


class Delivery(models.Model):
    """One message to one receiver: its attempts and its outcome."""

    id: models.UUIDField[UUID | str, UUID] = models.UUIDField(
        primary_key=True, help_text="follows from the message and the receiver: the idempotency key"
    )
    message: models.ForeignKey[StoredMessage, StoredMessage] = models.ForeignKey(
        StoredMessage, on_delete=models.CASCADE, related_name="deliveries"
    )
    receiver: models.TextField[str, str] = models.TextField(
        blank=True, help_text="empty: the whole message, its recipients unknown"
    )
    queue: models.TextField[str, str] = models.TextField(blank=True, help_text="empty: the default queue")
    state: models.CharField[str, str] = models.CharField(max_length=10, choices=State, default=State.PENDING)
    attempts: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(default=0)
    allowance: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(
        default=0, help_text="attempts made before the last retry by hand"
    )
    due_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField(
        help_text="when the sweeper looks at it next"
    )
    parked_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, help_text="since when it has been unknown"
    )
    error: models.TextField[str, str] = models.TextField(blank=True)
    traceback: models.TextField[str, str] = models.TextField(blank=True)
    failed_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(null=True)
    created_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()
    ended_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        indexes: ClassVar[list[models.Index]] = [
            # What the sweeper asks each second, and what `failed` and `purge` ask.
            models.Index(fields=["state", "due_at"], name="signalbus_due"),
            models.Index(fields=["state", "ended_at"], name="signalbus_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.message_id} to {self.receiver or 'whom it names'}: {self.state}"

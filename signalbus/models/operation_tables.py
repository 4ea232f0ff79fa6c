"""Define the tables of what people do: operations with their progress, pauses, and alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models

from signalbus.core.printable_text import printable

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models.expressions import Combinable

SHOWN_CHARS = 200  # of a name, where a row is named


class Operation(models.Model):
    """An action of a person on deliveries: the audit log, and the progress of actions in bulk."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    kind: models.CharField[str, str] = models.CharField(max_length=20, help_text="retry, discard, pause, resume …")
    filter: models.JSONField[Any, Any] = models.JSONField(
        default=dict, help_text="which deliveries, as it was when it was asked for"
    )
    reason: models.TextField[str, str] = models.TextField(blank=True)
    rate: models.FloatField[float | None, float | None] = models.FloatField(
        null=True, blank=True, help_text="deliveries a second; NULL: no limit"
    )
    by: models.TextField[str, str] = models.TextField(blank=True, help_text="the name of who asked for it")
    by_id: models.TextField[str, str] = models.TextField(blank=True, help_text="the id of that user, if it has one")
    through: models.CharField[str, str] = models.CharField(max_length=10, help_text="web, command or code")
    state: models.CharField[str, str] = models.CharField(
        max_length=10, default="done", help_text="waiting, running, paused, done, cancelled or stopped"
    )
    counts: models.JSONField[Any, Any] = models.JSONField(
        default=dict, help_text="numbers of deliveries: found, done, failed again …"
    )
    details: models.JSONField[Any, Any] = models.JSONField(
        default=dict, help_text="what else belongs to this kind of operation"
    )
    created_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField(db_index=True)
    started_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(null=True)
    ended_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(null=True)

    class Meta:
        # Those that have not ended, which sweepers look for, and the oldest, which they delete.
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["ended_at"], name="signalbus_operations")]

    def __str__(self) -> str:
        return f"{self.kind} by {printable(self.by or self.through, SHOWN_CHARS)}: {self.state}"


class Pause(models.Model):
    """A receiver, a signal, a queue or what matches a filter does not run. The row ends when all of it was let go."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    kind: models.CharField[str, str] = models.CharField(max_length=10, help_text="receiver, signal, queue or filter")
    name: models.TextField[str, str] = models.TextField(blank=True, help_text="of the receiver, signal or queue")
    filter: models.JSONField[Any, Any] = models.JSONField(default=dict, help_text="what is paused, by a filter")
    by: models.TextField[str, str] = models.TextField(blank=True, help_text="as in an operation")
    by_id: models.TextField[str, str] = models.TextField(blank=True, help_text="as in an operation")
    reason: models.TextField[str, str] = models.TextField(blank=True)
    since: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()
    until: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, blank=True, help_text="when it ends by itself"
    )
    resumed_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(
        null=True, blank=True, help_text="since when what it held is let go"
    )
    resume_rate: models.FloatField[float | None, float | None] = models.FloatField(
        null=True, blank=True, help_text="deliveries a second that are let go; NULL: all at once"
    )

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Alert(models.Model):
    """A condition that needs a person: since when, and until when."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    kind: models.CharField[str, str] = models.CharField(max_length=20)
    key: models.TextField[str, str] = models.TextField(blank=True, help_text="what it is about, as a queue or a group")
    text: models.TextField[str, str] = models.TextField()
    raised_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()
    cleared_at: models.DateTimeField[datetime | Combinable | None, datetime | None] = models.DateTimeField(null=True)
    notices: models.JSONField[Any, Any] = models.JSONField(
        default=dict, help_text="by notifier, the change that it has sent: raised or cleared"
    )

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["raised_at"], name="signalbus_alerts"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}: {self.text}"

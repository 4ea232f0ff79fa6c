"""Define the tables of what has happened: failed attempts, counts over time, and workers with what they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models

from signalbus.models.message_tables import Delivery

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from django.db.models.expressions import Combinable


class FailedAttempt(models.Model):
    """An attempt that failed, or whose process was lost; it stays when a later attempt succeeds.

    The first attempt of a delivery and the last nine are kept, until the delivery is purged.
    """

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    # As Delivery.message.
    delivery: models.ForeignKey[Delivery, Delivery] = models.ForeignKey(
        Delivery, on_delete=models.CASCADE, related_name="failed_attempts", db_constraint=False, db_index=False
    )
    number: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(help_text="1 for the first attempt")
    ended_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()
    runtime_ms: models.PositiveIntegerField[int | None, int | None] = models.PositiveIntegerField(
        null=True, help_text="NULL if its receiver was not called, or its process was lost"
    )
    was_lost: models.BooleanField[bool, bool] = models.BooleanField(
        default=False, help_text="its process was lost: killed, crashed or away"
    )
    worker: models.TextField[str, str] = models.TextField(blank=True, help_text="host and process id")
    release: models.TextField[str, str] = models.TextField(blank=True, help_text='SIGNALBUS["RELEASE"] of the worker')
    error: models.TextField[str, str] = models.TextField()
    error_group: models.CharField[str, str] = models.CharField(max_length=16)
    traceback: models.TextField[str, str] = models.TextField(
        blank=True, help_text="empty if the attempt before failed in the same group"
    )

    class Meta:
        db_table = "signalbus_failed_attempt"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["delivery", "number"], name="signalbus_attempts"),
            models.Index(fields=["error_group", "ended_at"], name="signalbus_causes"),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.delivery_id}: {self.error}"


class Rollup(models.Model):
    """The outcomes that one process counted in one period, for one receiver of one signal; rows are only added.

    A sweeper merges the rows of a period into one, the older the coarser. When it merges the rows of the processes, it
    adds them to the total of the receiver as well, a row whose `seconds` are 0. So the total, with the rows that are
    not merged yet (those that name a worker), only grows; a sum over a period leaves the totals out.
    """

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    bucket_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField(
        help_text="the beginning of the period"
    )
    seconds: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(
        help_text="the length of the period; 0: the total of all periods"
    )
    worker: models.TextField[str, str] = models.TextField(
        blank=True, help_text="host and process id; empty once it is merged"
    )
    release: models.TextField[str, str] = models.TextField(blank=True)
    queue: models.TextField[str, str] = models.TextField(blank=True, help_text="empty: the default queue")
    signal: models.TextField[str, str] = models.TextField()
    receiver: models.TextField[str, str] = models.TextField(blank=True)
    done: models.BigIntegerField[int, int] = models.BigIntegerField(default=0)
    failed: models.BigIntegerField[int, int] = models.BigIntegerField(default=0, help_text="attempts to be repeated")
    dead: models.BigIntegerField[int, int] = models.BigIntegerField(default=0)
    skipped: models.BigIntegerField[int, int] = models.BigIntegerField(default=0)
    runtime_ms: models.BigIntegerField[int, int] = models.BigIntegerField(
        default=0, help_text="the sum of the times that receivers ran"
    )
    delay_ms: models.BigIntegerField[int, int] = models.BigIntegerField(
        default=0, help_text="the sum of the times between send() and the first attempt"
    )
    runtimes: models.JSONField[Any, Any] = models.JSONField(
        default=list, help_text="runs by run time: how many lie below each bound"
    )
    delays: models.JSONField[Any, Any] = models.JSONField(
        default=list, help_text="first attempts by delay, as the run times"
    )

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["seconds", "bucket_at"], name="signalbus_buckets"),
        ]

    def __str__(self) -> str:
        return f"{self.signal} to {self.receiver} at {self.bucket_at}: {self.done} done, {self.failed} failed"


class WorkerRecord(models.Model):
    """A worker: what it is, what it consumes and knows, and when it was last seen. Its row ends with it."""

    # Host and process id of its main process: a container that starts again takes over the row of the one before.
    name: models.CharField[str, str] = models.CharField(max_length=255, primary_key=True)
    host: models.TextField[str, str] = models.TextField()
    pid: models.PositiveIntegerField[int, int] = models.PositiveIntegerField()
    pool: models.TextField[str, str] = models.TextField(help_text="prefork, threads, solo, gevent or eventlet")
    concurrency: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(
        help_text="deliveries that it runs at once"
    )
    queues: models.JSONField[Any, Any] = models.JSONField(default=list, help_text="the queues that it consumes")
    version: models.TextField[str, str] = models.TextField(help_text="of signalbus")
    release: models.TextField[str, str] = models.TextField(blank=True, help_text='SIGNALBUS["RELEASE"]')
    registry_digest: models.CharField[str, str] = models.CharField(
        max_length=16, help_text="the same for workers that know the same receivers"
    )
    receivers: models.JSONField[Any, Any] = models.JSONField(
        default=dict, help_text="the receivers that it knows, by signal"
    )
    started_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()
    seen_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()

    class Meta:
        db_table = "signalbus_worker"

    def __str__(self) -> str:
        return self.name


class RunningDelivery(models.Model):
    """A delivery that a process has been running for more than a second. Its row ends with the run."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    worker: models.CharField[str, str] = models.CharField(
        max_length=255, help_text="host and process id of the process that runs it"
    )
    # No foreign key: not every delivery that runs has a row.
    delivery: models.UUIDField[UUID | str, UUID] = models.UUIDField()
    message: models.UUIDField[UUID | str, UUID] = models.UUIDField()
    signal: models.TextField[str, str] = models.TextField()
    receiver: models.TextField[str, str] = models.TextField()
    attempt: models.PositiveIntegerField[int, int] = models.PositiveIntegerField()
    started_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField()
    seen_at: models.DateTimeField[datetime | Combinable, datetime] = models.DateTimeField(
        help_text="when its process last said that it runs"
    )

    class Meta:
        db_table = "signalbus_running"
        verbose_name_plural = "running deliveries"

    def __str__(self) -> str:
        return f"{self.signal} to {self.receiver} in {self.worker}"

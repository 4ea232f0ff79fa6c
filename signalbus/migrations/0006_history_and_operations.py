"""Add the tables of failures, outcomes over time, workers, operations, pauses and alerts; rename the model of queues."""

from typing import ClassVar

import django.db.models.deletion
from django.db import migrations, models
from django.db.migrations.operations.base import Operation

import signalbus.models.message_tables


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0005_held_deliveries")]

    operations: ClassVar[list[Operation]] = [
        # The table keeps its name, and no statement is run.
        migrations.AlterModelTable("lane", "signalbus_lane"),
        migrations.RenameModel("Lane", "QueueState"),
        migrations.CreateModel(
            name="Alert",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=20)),
                ("key", models.TextField(blank=True, help_text="what it is about, as a queue or a group")),
                ("text", models.TextField()),
                ("raised_at", models.DateTimeField()),
                ("cleared_at", models.DateTimeField(null=True)),
            ],
            options={"indexes": [models.Index(fields=["raised_at"], name="signalbus_alerts")]},
        ),
        migrations.CreateModel(
            name="FailedAttempt",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "delivery",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="failed_attempts",
                        to="signalbus.delivery",
                    ),
                ),
                ("number", models.PositiveIntegerField(help_text="1 for the first attempt")),
                ("ended_at", models.DateTimeField()),
                (
                    "runtime_ms",
                    models.PositiveIntegerField(
                        help_text="NULL if its receiver was not called, or its process was lost", null=True
                    ),
                ),
                (
                    "was_lost",
                    models.BooleanField(default=False, help_text="its process was lost: killed, crashed or away"),
                ),
                ("worker", models.TextField(blank=True, help_text="host and process id")),
                ("release", models.TextField(blank=True, help_text='SIGNALBUS["RELEASE"] of the worker')),
                ("error", models.TextField()),
                ("error_group", models.CharField(max_length=16)),
                (
                    "traceback",
                    models.TextField(blank=True, help_text="empty if the attempt before failed in the same group"),
                ),
            ],
            options={
                "db_table": "signalbus_failed_attempt",
                "indexes": [
                    models.Index(fields=["delivery", "number"], name="signalbus_attempts"),
                    models.Index(fields=["error_group", "ended_at"], name="signalbus_causes"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Operation",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("kind", models.CharField(help_text="retry, discard, pause, resume …", max_length=20)),
                (
                    "filter",
                    models.JSONField(default=dict, help_text="which deliveries, as it was when it was asked for"),
                ),
                ("reason", models.TextField(blank=True)),
                ("rate", models.FloatField(blank=True, help_text="deliveries a second; NULL: no limit", null=True)),
                ("by", models.TextField(blank=True, help_text="the name of who asked for it")),
                ("by_id", models.TextField(blank=True, help_text="the id of that user, if it has one")),
                ("through", models.CharField(help_text="web, command or code", max_length=10)),
                (
                    "state",
                    models.CharField(
                        default="done", help_text="waiting, running, paused, done, cancelled or stopped", max_length=10
                    ),
                ),
                (
                    "counts",
                    models.JSONField(default=dict, help_text="numbers of deliveries: found, done, failed again …"),
                ),
                ("details", models.JSONField(default=dict, help_text="what else belongs to this kind of operation")),
                ("created_at", models.DateTimeField(db_index=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="Pause",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("kind", models.CharField(help_text="receiver, signal, queue or filter", max_length=10)),
                ("name", models.TextField(blank=True, help_text="of the receiver, signal or queue")),
                ("filter", models.JSONField(default=dict, help_text="what is paused, by a filter")),
                ("by", models.TextField(blank=True, help_text="as in an operation")),
                ("by_id", models.TextField(blank=True, help_text="as in an operation")),
                ("reason", models.TextField(blank=True)),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField(blank=True, help_text="when it ends by itself", null=True)),
                (
                    "resumed_at",
                    models.DateTimeField(blank=True, help_text="since when what it held is let go", null=True),
                ),
                (
                    "resume_rate",
                    models.FloatField(
                        blank=True, help_text="deliveries a second that are let go; NULL: all at once", null=True
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Rollup",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("bucket_at", models.DateTimeField(help_text="the beginning of the period")),
                (
                    "seconds",
                    models.PositiveIntegerField(help_text="the length of the period; 0: the total of all periods"),
                ),
                ("worker", models.TextField(blank=True, help_text="host and process id; empty once it is merged")),
                ("release", models.TextField(blank=True)),
                ("queue", models.TextField(blank=True, help_text="empty: the default queue")),
                ("signal", models.TextField()),
                ("receiver", models.TextField(blank=True)),
                ("done", models.BigIntegerField(default=0)),
                ("failed", models.BigIntegerField(default=0, help_text="attempts to be repeated")),
                ("dead", models.BigIntegerField(default=0)),
                ("skipped", models.BigIntegerField(default=0)),
                ("runtime_ms", models.BigIntegerField(default=0, help_text="the sum of the times that receivers ran")),
                (
                    "delay_ms",
                    models.BigIntegerField(
                        default=0, help_text="the sum of the times between send() and the first attempt"
                    ),
                ),
                (
                    "runtimes",
                    models.JSONField(default=list, help_text="runs by run time: how many lie below each bound"),
                ),
                ("delays", models.JSONField(default=list, help_text="first attempts by delay, as the run times")),
            ],
            options={"indexes": [models.Index(fields=["seconds", "bucket_at"], name="signalbus_buckets")]},
        ),
        migrations.CreateModel(
            name="RunningDelivery",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "worker",
                    models.CharField(help_text="host and process id of the process that runs it", max_length=255),
                ),
                ("delivery", models.UUIDField()),
                ("message", models.UUIDField()),
                ("signal", models.TextField()),
                ("receiver", models.TextField()),
                ("attempt", models.PositiveIntegerField()),
                ("started_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField(help_text="when its process last said that it runs")),
            ],
            options={
                "verbose_name_plural": "running deliveries",
                "db_table": "signalbus_running",
            },
        ),
        migrations.CreateModel(
            name="WorkerRecord",
            fields=[
                ("name", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("host", models.TextField()),
                ("pid", models.PositiveIntegerField()),
                ("pool", models.TextField(help_text="prefork, threads, solo, gevent or eventlet")),
                ("concurrency", models.PositiveIntegerField(help_text="deliveries that it runs at once")),
                ("queues", models.JSONField(default=list, help_text="the queues that it consumes")),
                ("version", models.TextField(help_text="of signalbus")),
                ("release", models.TextField(blank=True, help_text='SIGNALBUS["RELEASE"]')),
                (
                    "registry_digest",
                    models.CharField(help_text="the same for workers that know the same receivers", max_length=16),
                ),
                ("receivers", models.JSONField(default=dict, help_text="the receivers that it knows, by signal")),
                ("started_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
            ],
            options={
                "db_table": "signalbus_worker",
            },
        ),
        migrations.AddField(
            model_name="delivery",
            name="error_group",
            field=models.CharField(
                blank=True, help_text="the same for failures of one cause", max_length=16, null=True
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("error_group__isnull", False)), fields=["error_group"], name="signalbus_group"
            ),
        ),
        migrations.AddIndex(
            model_name="storedmessage",
            index=signalbus.models.message_tables.TextIndex(
                condition=models.Q(("subject", ""), _negated=True), fields=["subject"], name="signalbus_subject"
            ),
        ),
        migrations.AlterModelOptions(
            name="delivery",
            options={
                "permissions": [
                    ("view_payload", "Can see the payloads of messages"),
                    ("operate_delivery", "Can retry and discard deliveries, pause and resume receivers"),
                ],
                "verbose_name_plural": "deliveries",
            },
        ),
    ]

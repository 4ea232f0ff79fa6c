"""The ledger until done: rows from the beginning, in the order of time; what is young has defaults for 0.1's workers."""

from typing import ClassVar

import django.db.models.deletion
from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0002_stored_message")]

    operations: ClassVar[list[Operation]] = [
        migrations.CreateModel(
            name="Key",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        help_text="follows from the signal, the sender and the key", primary_key=True, serialize=False
                    ),
                ),
                (
                    "position",
                    models.BigIntegerField(db_default=0, default=0, help_text="of the last delivery in its order"),
                ),
                (
                    "message",
                    models.UUIDField(help_text="the message that stands for equal ones while it waits", null=True),
                ),
                ("since", models.DateTimeField(help_text="when the burst began that is being waited out", null=True)),
                ("used_at", models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="Lane",
            fields=[
                ("queue", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("marked_at", models.DateTimeField(help_text="when the last marker was sent", null=True)),
                (
                    "returned_at",
                    models.DateTimeField(help_text="when the last marker that came back had been sent", null=True),
                ),
                ("seen_at", models.DateTimeField(help_text="when it came back", null=True)),
                (
                    "proven_at",
                    models.DateTimeField(
                        help_text="what was published before is on no queue, and with no worker that would still run it",
                        null=True,
                    ),
                ),
            ],
        ),
        migrations.RemoveIndex(
            model_name="delivery",
            name="signalbus_due",
        ),
        migrations.RemoveIndex(
            model_name="delivery",
            name="signalbus_ended",
        ),
        migrations.AddField(
            model_name="delivery",
            name="ordering_key",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="follows from signal, receiver and key; with one, one at a time, by position",
                max_length=32,
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="position",
            field=models.BigIntegerField(db_default=0, default=0, help_text="in the order of its key's commits"),
        ),
        migrations.AddField(
            model_name="delivery",
            name="publications",
            field=models.PositiveSmallIntegerField(
                db_default=0, default=0, help_text="how often it was published again because it was lost"
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="runtime_ms",
            field=models.PositiveIntegerField(help_text="of a run that took 10 ms and more", null=True),
        ),
        migrations.AddField(
            model_name="delivery",
            name="started_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="delivery",
            name="worker",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.AddField(
            model_name="storedmessage",
            name="subject",
            field=models.TextField(blank=True, db_default="", default="", help_text="what it is about: label and key"),
        ),
        migrations.AlterField(
            model_name="delivery",
            name="message",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="deliveries",
                to="signalbus.storedmessage",
            ),
        ),
        migrations.AlterField(
            model_name="delivery",
            name="queue",
            field=models.CharField(blank=True, help_text="empty: the default queue", max_length=255),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("ended_at", None)), fields=["state", "queue", "due_at"], name="signalbus_open"
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("state__in", ("pending", "parked", "running"))),
                fields=["due_at"],
                name="signalbus_waiting",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)), fields=["ended_at"], name="signalbus_over"
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(
                    models.Q(("ordering_key", ""), _negated=True),
                    models.Q(("state__in", ("done", "skipped", "discarded")), _negated=True),
                ),
                fields=["ordering_key", "position"],
                name="signalbus_order",
            ),
        ),
    ]

"""The state of deliveries that a gate holds, with its reason; workers of 0.4 leave rows in that state alone."""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0004_retries_by_share")]

    operations: ClassVar[list[Operation]] = [
        migrations.AddField(
            model_name="delivery",
            name="held_reason",
            field=models.TextField(blank=True, help_text="why it was held the last time", null=True),
        ),
        migrations.AlterField(
            model_name="delivery",
            name="state",
            field=models.CharField(
                choices=[
                    ("pending", "Pending"),
                    ("parked", "Parked"),
                    ("held", "Held"),
                    ("published", "Published"),
                    ("running", "Running"),
                    ("done", "Done"),
                    ("skipped", "Skipped"),
                    ("dead", "Dead"),
                    ("discarded", "Discarded"),
                ],
                default="pending",
                max_length=10,
            ),
        ),
        # PostgreSQL uses it for the three states of 0.4's sweepers as well; those of SQLite read the table meanwhile.
        migrations.RemoveIndex(model_name="delivery", name="signalbus_waiting"),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("state__in", ("pending", "parked", "held", "running"))),
                fields=["due_at"],
                name="signalbus_waiting",
            ),
        ),
    ]

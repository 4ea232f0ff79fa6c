"""Which worker's sweeper has published a retry, so that each keeps to its share; workers of 0.4 need not know it."""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0003_ledger")]

    operations: ClassVar[list[Operation]] = [
        migrations.AddField(
            model_name="delivery",
            name="admitted_by",
            field=models.TextField(help_text="the worker whose sweeper published it for a retry", null=True),
        ),
        migrations.AlterField(
            model_name="delivery",
            name="runtime_ms",
            field=models.PositiveIntegerField(help_text="of a run that failed, or took 10 ms and more", null=True),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("admitted_by__isnull", False), ("state__in", ("published", "running"))),
                fields=["due_at"],
                name="signalbus_admitted",
            ),
        ),
    ]

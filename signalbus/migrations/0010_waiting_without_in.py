"""Select the rows of an index by ORs instead of IN: SQLite would build a table for each row that it writes.

A sweeper of an earlier version beside finds its due rows on SQLite without the index, by reading the table.
"""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0009_notices_of_alerts")]

    operations: ClassVar[list[Operation]] = [
        migrations.RemoveIndex(model_name="delivery", name="signalbus_waiting"),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(
                    ("state", "pending"), ("state", "parked"), ("state", "held"), ("state", "running"), _connector="OR"
                ),
                fields=["due_at"],
                name="signalbus_waiting",
            ),
        ),
    ]

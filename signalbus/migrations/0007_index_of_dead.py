"""An index of the deliveries that people look for: dead, skipped or discarded. What is done is not in it."""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0006_history_and_operations")]

    operations: ClassVar[list[Operation]] = [
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("state", "skipped"), ("state", "dead"), ("state", "discarded"), _connector="OR"),
                fields=["state", "id"],
                name="signalbus_found",
            ),
        ),
    ]

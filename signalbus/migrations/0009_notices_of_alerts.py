"""Add a column for what notifiers have sent of each alert."""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0008_root_and_more_subjects")]

    operations: ClassVar[list[Operation]] = [
        migrations.AddField(
            model_name="alert",
            name="notices",
            field=models.JSONField(
                default=dict, help_text="by notifier, the change that it has sent: raised or cleared"
            ),
        ),
    ]

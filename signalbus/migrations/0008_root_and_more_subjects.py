"""The root of a message's cascade, more rows that a message names, and indexes for lists of failures and operations.

Both columns are NULL in the rows of older versions, whose workers and senders insert rows without them.
"""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation

import signalbus.models.message_tables


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0007_index_of_dead")]

    operations: ClassVar[list[Operation]] = [
        migrations.AddField(
            model_name="storedmessage",
            name="more_subjects",
            field=models.TextField(blank=True, help_text="up to seven more rows that it names, a line each", null=True),
        ),
        migrations.AddField(
            model_name="storedmessage",
            name="root",
            field=models.UUIDField(
                help_text="the first message of its cascade; NULL for that itself, and for what older versions sent",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="storedmessage",
            index=models.Index(condition=models.Q(("root__isnull", False)), fields=["root"], name="signalbus_cascade"),
        ),
        migrations.RemoveIndex(model_name="delivery", name="signalbus_group"),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("error_group__isnull", False)), fields=["error_group", "id"], name="signalbus_cause"
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=signalbus.models.message_tables.IndexOfSome(
                condition=models.Q(("error_group__isnull", False)), fields=["id"], name="signalbus_failures"
            ),
        ),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(fields=["ended_at"], name="signalbus_operations"),
        ),
    ]

"""The model is called what no value on the wire is called; its table stays, for workers of the version before."""

from typing import ClassVar

from django.db import migrations
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("signalbus", "0001_initial")]

    operations: ClassVar[list[Operation]] = [
        migrations.AlterModelTable("message", "signalbus_message"),
        migrations.RenameModel("Message", "StoredMessage"),
        migrations.AlterModelOptions("storedmessage", {"verbose_name": "message"}),
    ]

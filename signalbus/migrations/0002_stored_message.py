"""The model is called what no value on the wire is called; its table stays, for workers of the version before."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("signalbus", "0001_initial")]

    operations = [
        migrations.AlterModelTable("message", "signalbus_message"),
        migrations.RenameModel("Message", "StoredMessage"),
        migrations.AlterModelOptions("storedmessage", {"verbose_name": "message"}),
    ]

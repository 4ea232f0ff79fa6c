"""What is committed together with a send, and what receivers leave; the suite makes the tables without migrations.

The managers are named, because the type checker looks at another settings module, which lacks this app.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Sending(models.Model):
    """The sender's own row, in the transaction of its ``send()``: whether it is there tells whether it committed."""

    message = models.UUIDField(primary_key=True)

    objects: ClassVar[models.Manager[Sending]] = models.Manager()

    def __str__(self) -> str:
        return str(self.message)


class Effect(models.Model):
    """What one run of a receiver left; nothing keeps it from being there twice, so that twice can be counted."""

    message = models.UUIDField()
    receiver = models.TextField()
    at = models.FloatField(help_text="time.monotonic(), which is one clock for the machine")

    objects: ClassVar[models.Manager[Effect]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.message} to {self.receiver}"


class Account(models.Model):
    """A row that receivers lock, in orders that cross."""

    balance = models.IntegerField(default=0)

    objects: ClassVar[models.Manager[Account]] = models.Manager()

    def __str__(self) -> str:
        return f"account {self.pk}"

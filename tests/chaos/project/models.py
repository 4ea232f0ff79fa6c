"""Rows that are committed together with a send, and rows of receivers; their tables are made without migrations.

The managers are named, because the type checker looks at another settings module, which lacks this app.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Sending(models.Model):
    """The sender's own row, in the transaction of its ``send()``: it exists if the transaction committed."""

    message = models.UUIDField(primary_key=True)

    objects: ClassVar[models.Manager[Sending]] = models.Manager()

    def __str__(self) -> str:
        return str(self.message)


class Effect(models.Model):
    """A row of one run of a receiver; no constraint prevents a second one, so duplicates can be counted."""

    message = models.UUIDField()
    receiver = models.TextField()
    at = models.FloatField(help_text="time.monotonic(), which is one clock for the machine")

    objects: ClassVar[models.Manager[Effect]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.message} to {self.receiver}"


class Account(models.Model):
    """A row that receivers lock in crossing orders."""

    balance = models.IntegerField(default=0)

    objects: ClassVar[models.Manager[Account]] = models.Manager()

    def __str__(self) -> str:
        return f"account {self.pk}"

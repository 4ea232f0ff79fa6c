"""Orders, and what receivers did for them; the tables are made without migrations.

The managers are named, because the type checker looks at another settings module, which lacks this app.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Order(models.Model):
    """An order; those that are paid by card need a service that is away during the whole drill."""

    by_card = models.BooleanField(default=False)

    objects: ClassVar[models.Manager[Order]] = models.Manager()

    def __str__(self) -> str:
        return f"order {self.pk}"


class Effect(models.Model):
    """A row of one run of a receiver; no constraint prevents a second one, so duplicates can be counted."""

    receiver = models.CharField(max_length=100)
    order = models.IntegerField()

    objects: ClassVar[models.Manager[Effect]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.receiver} of order {self.order}"

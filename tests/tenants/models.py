"""The tables of each tenant."""

from __future__ import annotations

from django.db import models


class Invoice(models.Model):
    """An invoice; each tenant has ones with the same keys."""

    owner = models.CharField(max_length=20)
    objects: models.Manager[Invoice] = models.Manager()  # the type checker knows no app that is not in tests.settings

    def __str__(self) -> str:
        return self.owner


class Arrival(models.Model):
    """What a receiver saw, or its callback of on_commit, in the schema of its tenant."""

    kind = models.CharField(max_length=20)
    sent_by = models.CharField(max_length=20)
    owner = models.CharField(max_length=20)
    schema = models.CharField(max_length=20)
    objects: models.Manager[Arrival] = models.Manager()  # as above

    def __str__(self) -> str:
        return self.kind

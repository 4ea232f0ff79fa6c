"""A model with a file; a test creates its table, because the app has no migrations."""

from __future__ import annotations

from django.db import models


class Upload(models.Model):
    """A file."""

    document = models.FileField()
    objects: models.Manager[Upload] = models.Manager()  # the type checker knows no app that is not in tests.settings

    def __str__(self) -> str:
        return str(self.document)

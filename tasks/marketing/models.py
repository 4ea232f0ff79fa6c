"""The rows of marketing."""

from __future__ import annotations

from django.db import models


class FormEntry(models.Model):
    """A note of a receiver or a task: its action and its process."""

    kind = models.CharField(max_length=60)
    subject = models.CharField(max_length=200)
    pid = models.IntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}"

"""A host's shared tasks, which our own app's worker runs when a receiver starts them."""

from __future__ import annotations

import os
from typing import Any

from celery import Task, shared_task

from tasks.marketing.models import FormEntry


@shared_task(ignore_result=True)
def note(subject: str, more: object = None) -> None:
    """Record the run."""
    FormEntry.objects.create(kind="noted", subject=subject, pid=os.getpid())


@shared_task(bind=True, ignore_result=True)
def note_at_the_second_try(self: Task[Any, Any], subject: str) -> None:
    """Ask for a retry, once."""
    if not self.request.retries:
        raise self.retry(countdown=0.1)
    note(subject)


@shared_task(ignore_result=True)
def task_that_fails() -> None:
    """Raise."""
    raise ValueError("as it should")

"""celery-task-manager's Emisor: a Celery app that knows its tasks and our receiver."""

from __future__ import annotations

from celery import Celery

app = Celery("emisor", include=["task_manager.django.tasks", "benchmarks.peers.emisor_receivers"])
app.config_from_object("django.conf:settings", namespace="CELERY")


def send(count: int) -> None:
    """Send so many."""
    from benchmarks.peers.emisor_receivers import saved  # noqa: PLC0415
    from benchmarks.servers import cohort  # noqa: PLC0415 - Celery imports this module before Django is set up
    from tasks.admissions.models import Cohort  # noqa: PLC0415

    app.set_current()
    instance = cohort()
    for _ in range(count):
        saved.delay(sender=Cohort, instance=instance, created=True)

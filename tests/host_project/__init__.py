"""A host project with a Celery app of its own, as Celery's documentation shows for Django projects."""

from .celery import app as celery_app

__all__ = ["celery_app"]

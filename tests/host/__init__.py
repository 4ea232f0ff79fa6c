"""A host project that has a Celery app of its own, as Celery's documentation tells Django projects to make it."""

from .celery import app as celery_app

__all__ = ["celery_app"]

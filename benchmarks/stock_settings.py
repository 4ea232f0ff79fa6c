"""The settings of a project with Celery and no bus."""

from config.settings import *  # noqa: F403 - settings built on settings

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "tasks.admissions",
]

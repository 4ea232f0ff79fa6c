"""The host's settings, with workers that claim."""

from tests.host_project.settings import *  # noqa: F403 - settings built on settings

SIGNALBUS = {"CELERY_APP": "tests.host_project.celery:app", "CLAIM": True}

"""The host's settings, with workers that claim."""

from tests.host.settings import *  # noqa: F403 - settings built on settings

SIGNALBUS = {"CELERY_APP": "tests.host.celery:app", "CLAIM": True}

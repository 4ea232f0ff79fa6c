"""The host's settings: its app carries the signals, on its own queue."""

from tests.settings import *  # noqa: F403 - settings built on settings

CELERY_TASK_DEFAULT_QUEUE = "host"
SIGNALBUS = {"CELERY_APP": "tests.host_project.celery:app"}

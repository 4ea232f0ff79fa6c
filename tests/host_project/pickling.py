"""The settings of a host whose own tasks travel as pickles."""

import os

from tests.host_project.settings import *  # noqa: F403 - settings built on settings

# Empty: our own app carries the signals.
SIGNALBUS = {"CELERY_APP": os.environ.get("CARRIED_BY", "tests.host_project.celery:app") or None}

CELERY_TASK_SERIALIZER = "pickle"
CELERY_ACCEPT_CONTENT = ["pickle", "json"]

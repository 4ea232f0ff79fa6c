"""The checkout's settings with the chaos suite's app, and with shorter waits."""

import os

from config.settings import *  # noqa: F403 - settings built on settings

INSTALLED_APPS = ["signalbus", "tests.chaos.project"]

# What a worker was given and lost comes back after three times TIME_LIMIT: 15 minutes by default, 9 s here. A run that
# says "within 30 s" speaks of this setting.
TIME_LIMIT = 3.0
SIGNALBUS = {"TIME_LIMIT": TIME_LIMIT, "SWEEP_SECONDS": 0.5, "PUBLISH_TIMEOUT": 1.0, "CONNECT_TIMEOUT": 1.0}
if os.environ.get("CHAOS_TRANSPORT") == "kombu":
    SIGNALBUS["CLAIM"] = False

CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 3.0

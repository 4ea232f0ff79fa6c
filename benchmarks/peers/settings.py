"""The settings of a project with one of the peers and no bus; BENCH_PEER names its module."""

import os
from importlib.util import find_spec

from config.settings import *  # noqa: F403 - settings built on settings

_APPS = {
    "on_emisor": ["tasks.admissions", "task_manager"],
    "on_procrastinate": ["procrastinate.contrib.django"],
    "on_django_tasks": [*([] if find_spec("django.tasks") else ["django_tasks"]), "django_tasks_db"],
    "on_django_q": ["django_q"],
}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", *_APPS[os.environ["BENCH_PEER"]]]

PROCRASTINATE_IMPORT_PATHS = ["benchmarks.peers.on_procrastinate"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
Q_CLUSTER = {"name": "bench", "orm": "default", "workers": 2, "timeout": 60, "retry": 120, "log_level": "WARNING"}

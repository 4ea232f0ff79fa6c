"""The checkout's settings, with the receivers that misbehave."""

import os

from config.settings import *  # noqa: F403 - settings built on settings
from config.settings import DATABASES, INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = [
    *INSTALLED_APPS,
    "django.contrib.admin",
    "django.contrib.messages",
    "signalbus.web",
    "tests.misbehaving",
]

# What Django's admin and the web app need.
MIDDLEWARE = [
    *MIDDLEWARE,
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.urls"

# pytest-celery's teardown looks at every object there is, and so wakes Django's lazy ones: this one needs a setting.
STATIC_URL = "static/"

SIGNALBUS = {}
# A worker that is to overrun its time, or to be slow, must do so within a test's patience.
if "TIME_LIMIT" in os.environ:
    SIGNALBUS["TIME_LIMIT"] = float(os.environ["TIME_LIMIT"])
# A worker as it was before ours claimed.
if "KOMBUS_TRANSPORT" in os.environ:
    SIGNALBUS["CLAIM"] = False

# A worker with both tracing systems.
if "TRACES_FOLDER" in os.environ:
    from tests.local_traces import write_to

    write_to(os.environ["TRACES_FOLDER"])
    SIGNALBUS |= {"OTEL": True, "SENTRY": True, "TRACE_PARENT": True, "MAX_CASCADE": 4}

# psycopg's pool, on PostgreSQL; this process itself, which is not forked, does without.
if "DATABASE_POOL" in os.environ:
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"min_size": 2, "max_size": 2}

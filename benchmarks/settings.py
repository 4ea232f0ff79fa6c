"""The checkout's settings, with the benchmark's signals and receivers."""

from config.settings import *  # noqa: F403 - settings built on settings

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "signalbus",
    "tasks.admissions",
    "benchmarks",
]

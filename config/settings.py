"""The Django project of this checkout, which uses the library.

Everything that differs between machines comes from the environment: DATABASE_URL, CELERY_BROKER_URL, SECRET_KEY,
SECRET_KEY_FALLBACKS (comma-separated), DEBUG, ALLOWED_HOSTS (comma-separated); on RabbitMQ
CELERY_TASK_DEFAULT_QUEUE_TYPE; for Redis Sentinel, the master's name in CELERY_BROKER_TRANSPORT_OPTIONS (JSON).
"""

import importlib.util
import json
import os
from pathlib import Path

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent


def _list(name: str) -> list[str]:
    return [item for item in os.environ.get(name, "").split(",") if item]


DEBUG = os.environ.get("DEBUG", "") == "1"
# A checkout's own key: good for development, and refused by `manage.py check --deploy` for anything else.
SECRET_KEY = os.environ.get("SECRET_KEY") or "django-insecure-this-checkout-only"
SECRET_KEY_FALLBACKS = _list("SECRET_KEY_FALLBACKS")
ALLOWED_HOSTS = _list("ALLOWED_HOSTS")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "signalbus",
    "tasks.admissions",
    "tasks.marketing",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
WSGI_APPLICATION = "config.wsgi.application"

DATABASES = {"default": dj_database_url.config(default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Workers and web processes write at the same time: WAL lets readers go on, and an IMMEDIATE transaction waits for
    # its turn where a deferred one that reads, then writes, fails at once whatever the timeout.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
elif DATABASES["default"]["ENGINE"].endswith("mysql") and importlib.util.find_spec("MySQLdb") is None:
    # The same interface in pure Python: nothing to compile.
    import pymysql

    pymysql.install_as_MySQLdb()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
CELERY_BROKER_TRANSPORT_OPTIONS = json.loads(os.environ.get("CELERY_BROKER_TRANSPORT_OPTIONS") or "{}")
CELERY_TASK_DEFAULT_QUEUE_TYPE = os.environ.get("CELERY_TASK_DEFAULT_QUEUE_TYPE") or "classic"

SIGNALBUS: dict[str, object] = {}

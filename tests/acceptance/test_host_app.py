"""A host project's own Celery app carries the signals."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import redis

from tasks.marketing.models import FormEntry
from tests.servers import CHECKOUT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from signalbus.embedded import EmbeddedValkey
    from tests.servers import Worker

HOST_SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.host_project.settings"}
SEND = """
import django
django.setup()
from tests.misbehaving.signals import arriving
arriving.send(sender=None, label="by the host")
"""
PING = """
from tests.host_project import celery_app
assert celery_app.control.ping(timeout=5, limit=1)
"""
IDENTITY = """
import django
django.setup()
import signalbus.celery, tests.host_project
assert signalbus.celery.app is tests.host_project.celery_app
"""
NOT_TAKEN_OVER = """
import django
django.setup()
import signalbus.celery
ours = signalbus.celery.app
from celery import Celery, current_app
host = Celery("host")
assert current_app._get_current_object() is host
import threading
seen = []
thread = threading.Thread(target=lambda: seen.append(current_app._get_current_object()))
thread.start()
thread.join()
assert seen[0] is not ours
"""


def run(code: str, **environment: str) -> None:
    """Run code in a process of its own, as a web process of the project would."""
    subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env={**os.environ, **environment}, check=True, timeout=60
    )


@pytest.mark.parametrize("app", ["tests.host_project", "signalbus"])
def test_the_hosts_app_carries_the_signals(
    app: str, start_worker: Callable[..., Worker], broker_url: str, database_url: str
):
    """`celery -A host worker` and `celery -A signalbus worker` are the same app on the same queue."""
    worker = start_worker(app=app, environment=HOST_SETTINGS)

    run(SEND, **HOST_SETTINGS, CELERY_BROKER_URL=broker_url, DATABASE_URL=database_url)

    trace = wait_until(FormEntry.objects.filter(kind="arrived").first, what="the receiver")
    assert trace.subject == "by the host"
    assert ".> host " in worker.log


@pytest.mark.parametrize("database", ["sqlite"])
def test_the_hosts_workers_claim_with_the_setting(
    start_worker: Callable[..., Worker], broker_url: str, database_url: str, valkey: EmbeddedValkey
):
    """Celery's defaults stay, so that the workers exchange messages over the same transport."""
    settings = {"DJANGO_SETTINGS_MODULE": "tests.host_project.claiming"}
    with redis.Redis.from_url(valkey.redis_url) as client:
        client.delete("unacked_owners")
        worker = start_worker(app="tests.host_project", environment=settings)

        run(PING, **settings, CELERY_BROKER_URL=broker_url)
        run(SEND, **settings, CELERY_BROKER_URL=broker_url, DATABASE_URL=database_url)

        wait_until(FormEntry.objects.filter(kind="arrived").first, what="the receiver")
        assert client.exists("unacked_owners")
        assert worker.pid is not None


@pytest.mark.parametrize("app", [None, "tests.host_project.celery:app"])
def test_a_host_s_tasks_may_travel_as_pickles(
    app: str | None, start_worker: Callable[..., Worker], broker_url: str, database_url: str
):
    """A signal still travels as JSON, with the host's app and with ours."""
    settings = {"DJANGO_SETTINGS_MODULE": "tests.host_project.pickling", "CARRIED_BY": app or "", "C_FORCE_ROOT": "1"}
    start_worker(environment=settings)

    run(SEND, **settings, CELERY_BROKER_URL=broker_url, DATABASE_URL=database_url)

    wait_until(FormEntry.objects.filter(kind="arrived").first, what="the receiver")


def test_a_worker_that_takes_no_json_refuses_to_run(broker_url: str, database_url: str):
    """A worker that accepts only pickles would drop every signal."""
    said = refused_worker(
        CHECKOUT,
        C_FORCE_ROOT="1",
        DJANGO_SETTINGS_MODULE="tests.host_project.pickles_only",
        CELERY_BROKER_URL=broker_url,
        DATABASE_URL=database_url,
    )

    assert "CELERY_ACCEPT_CONTENT" in said


def test_signalbus_celery_app_is_the_hosts_app():
    """`celery -A signalbus` finds the same app object."""
    run(IDENTITY, **HOST_SETTINGS)


def test_our_own_app_does_not_become_current_or_default():
    """A host's app that is made after ours is the current one, in every thread."""
    run(NOT_TAKEN_OVER, DJANGO_SETTINGS_MODULE="tests.settings")


def refused_worker(directory: os.PathLike[str], **environment: str) -> str:
    """Start a worker that should refuse to run; return its output."""
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "signalbus", "worker"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    return ended.stdout + ended.stderr


def test_a_worker_without_its_settings_says_what_to_set(tmp_path: os.PathLike[str]):
    """The error names settings that cannot be imported, and the remedy."""
    said = refused_worker(tmp_path, DJANGO_SETTINGS_MODULE="nowhere.settings")

    assert "nowhere.settings" in said
    assert "manage.py" in said


def test_a_worker_without_signalbus_in_its_apps_refuses_to_run():
    """Such a worker would know neither the task nor a receiver, and Celery would discard the messages."""
    said = refused_worker(CHECKOUT, DJANGO_SETTINGS_MODULE="tests.host_project.without_signalbus")

    assert 'Add "signalbus" to INSTALLED_APPS' in said


def test_a_worker_without_its_tables_says_migrate(broker_url: str, tmp_path: Path):
    """The worker could not record failures, so it ends and names the command to run."""
    said = refused_worker(
        CHECKOUT, CELERY_BROKER_URL=broker_url, DATABASE_URL=f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    )

    assert "manage.py migrate" in said

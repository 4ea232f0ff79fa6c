"""The fixtures of the tests with real servers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest
from django.db import connection

from signalbus.celery import get_app
from tasks.admissions.models import Academy
from tasks.marketing.models import FormEntry
from tests.integration.test_embedded import is_gone
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Worker

TAG = "tasks.marketing.tasks.add_cohort_slug_as_acp_tag"


def send_tag(broker_url: str, number: int) -> None:
    """Send a plain task of the checkout, without the bus."""
    get_app().send_task(TAG, args=[number, "berlin"])


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_shares_the_database_and_the_broker(
    database: str, pool: str, broker_url: str, start_worker: Callable[..., Worker]
):
    """A worker's commits are visible here, on both databases."""
    worker = start_worker(pool=pool)

    send_tag(broker_url, 1)

    entry = wait_until(FormEntry.objects.filter(subject="1:berlin").first, what="the row")
    assert connection.vendor == ("postgresql" if database == "postgres" else "sqlite")
    assert entry.pid != os.getpid()
    assert entry.pid in {worker.pid, *worker.children()}


@pytest.mark.parametrize("database", ["postgres", "sqlite"])
@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_database_of_its_own(database_url: str, turn: int):
    """The next test does not see this one's commits."""
    assert not Academy.objects.exists()
    Academy.objects.create(name="Miami", slug="miami")


def test_a_stopped_worker_leaves_no_process(start_worker: Callable[..., Worker]):
    """A warm shutdown ends the children too, with status 0."""
    worker = start_worker(pool="prefork")
    children = worker.children()
    assert len(children) == 2

    assert worker.stop() == 0

    assert worker.pid is None
    assert all(is_gone(child) for child in children)


def test_a_killed_worker_can_be_started_again(broker_url: str, start_worker: Callable[..., Worker]):
    """The same worker comes back after kill -9, with an empty log."""
    worker = start_worker(pool="threads")

    worker.kill()
    assert worker.wait() == -signal.SIGKILL
    worker.start()
    worker.wait_until_ready()
    send_tag(broker_url, 2)

    wait_until(FormEntry.objects.filter(subject="2:berlin").exists, what="the row")


def test_postgres_is_an_address_to_connect_to(postgres: str):
    """The session's empty database answers to psycopg."""
    with psycopg.connect(postgres) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)

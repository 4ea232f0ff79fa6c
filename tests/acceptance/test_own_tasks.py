"""Shared tasks that receivers start in our own app's worker: each feature of Celery still works, sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from signalbus import celery
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import handing_on
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Worker

NOTED = {
    "chain 1",
    "chain 2",
    "countdown",
    "delay",
    "errback",
    "eta",
    "group 1",
    "group 2",
    "link",
    "links",
    "nested",
    "on commit",
    "retry",
}


def noted() -> set[str]:
    """Return what the tasks recorded."""
    return set(FormEntry.objects.filter(kind="noted").values_list("subject", flat=True))


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_receiver_starts_celery_tasks(pool: str, start_worker: Callable[..., Worker]):
    """Links, errbacks, chains, groups, countdowns, retries and deeply nested arguments: all run once."""
    worker = start_worker(pool=pool, environment={"DJANGO_SETTINGS_MODULE": "tests.settings"})
    main = worker.pid

    handing_on.send(sender=None)

    wait_until(lambda: noted() == NOTED, what="all that was handed on")
    assert FormEntry.objects.filter(kind="noted").count() == len(NOTED)
    assert worker.pid == main


def test_a_sender_may_start_tasks_through_our_app(start_worker: Callable[..., Worker]):
    """A web process, or `celery beat`, that publishes a task through `signalbus.celery.app` signs it too."""
    start_worker(environment={"DJANGO_SETTINGS_MODULE": "tests.settings"})

    celery.get_app().send_task("tests.misbehaving.tasks.note", args=["sent"], kwargs={"more": {"when": None}})

    wait_until(lambda: noted() == {"sent"}, what="the task")

"""pytest-celery's cluster on processes of this checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from signalbus.celery import get_app
from tasks.marketing.models import FormEntry
from tests.acceptance.process_nodes import WorkerNode
from tests.servers import wait_until

if TYPE_CHECKING:
    from pytest_celery import CeleryTestSetup

TAG = "tasks.marketing.tasks.add_cohort_slug_as_acp_tag"


def test_the_worker_runs_a_task_in_a_process_of_its_own(celery_setup: CeleryTestSetup):
    """The worker's node runs a plain task of the checkout, sent through the cluster's broker."""
    worker = celery_setup.worker.container
    assert isinstance(worker, WorkerNode)

    get_app().send_task(TAG, args=[1, "berlin"], queue=worker.worker_queue())

    entry = wait_until(FormEntry.objects.filter(kind="tag").first, what="the task's row")
    assert entry.subject == "1:berlin"
    assert entry.pid in {worker.worker.pid, *worker.worker.children()}


@pytest.mark.parametrize("worker_pool", ["threads"], indirect=True)
def test_nodes_answer_as_containers_do(celery_setup: CeleryTestSetup):
    """Logs, status, kill and restart of pytest-celery's API work on processes."""
    broker, worker = celery_setup.broker, celery_setup.worker
    url = broker.config()["url"]
    assert celery_setup.ready(docker=True)

    worker.kill()
    assert worker.container.status == "exited"
    worker.restart()
    broker.restart()
    worker.wait_for_log("ready.")

    assert worker.container.status == "running"
    assert broker.config()["url"] == url
    assert broker.container.client.ping()


@pytest.mark.parametrize("worker_pool", ["threads"], indirect=True)
def test_a_worker_that_ends_early_fails_at_once(celery_setup: CeleryTestSetup):
    """A node that cannot start says why, instead of waiting for its time limit."""
    worker = celery_setup.worker.container
    worker.worker.stop()
    worker.worker.command.append("--no-such-option")
    worker.worker.start()

    with pytest.raises(AssertionError, match="No such option"):
        worker._wait_ready()

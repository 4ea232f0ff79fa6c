"""A real worker records itself, what it runs, and what it has done."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from signalbus.models import Rollup, RunningDelivery, WorkerRecord
from tests.misbehaving.signals import hung_unrecorded
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Worker

RECEIVER = "tests.misbehaving.receivers.receiver_that_hangs_until_released"


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_worker_records_itself_and_what_it_runs(start_worker: Callable[..., Worker], tmp_path: Path, pool: str):
    """A long run is shown within three seconds and while it lasts, with its process; its outcome is counted when the
    worker stops.
    """
    settings = {"DJANGO_SETTINGS_MODULE": "tests.settings", "BATCH_FOLDER": str(tmp_path), "GIT_SHA": "a1b2"}
    worker = start_worker(environment=settings, pool=pool)
    hung_unrecorded.send(None)

    wait_until(RunningDelivery.objects.exists, what="the long run to be shown")
    run = RunningDelivery.objects.get()
    wait_until(WorkerRecord.objects.exists, what="the worker to be shown")  # by another process than the run
    record = WorkerRecord.objects.get()
    (tmp_path / "released").touch()
    wait_until(lambda: not RunningDelivery.objects.exists(), what="its end")
    worker.stop()

    main = f"{socket.gethostname()}:{record.pid}"
    assert record.name == main
    assert (run.worker != main) == (pool == "prefork")  # the process that runs it
    assert run.receiver == RECEIVER
    assert run.seen_at - run.started_at < timedelta(seconds=3)
    assert (record.pool, record.concurrency, record.release) == (pool, 1 if pool == "solo" else 2, "a1b2")
    assert "signalbus" in record.queues
    assert RECEIVER in record.receivers[hung_unrecorded.name]
    assert not WorkerRecord.objects.exists()
    counted = Rollup.objects.get(receiver=RECEIVER)
    assert (counted.done, counted.release, sum(counted.runtimes)) == (1, "a1b2", 1)
    assert counted.runtime_ms >= 1000
    assert "signalbus could not record" not in worker.log

"""A retry of many deliveries with real workers: it stops at the first if the bug is not fixed, else all are done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from django.db.models import Max

from signalbus.models import Delivery, Operation, State
from signalbus.services.actors import code_actor
from signalbus.services.changes.bulk_operations import operation
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import buggy
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Worker

COUNT, RATE = 200, 100


def test_a_bulk_retry_stops_at_the_bug_and_keeps_its_rate_when_it_is_fixed(
    start_worker: Callable[..., Worker], database_url: str, broker_url: str, tmp_path: Path
):
    """Two workers' sweepers share the work; when one is killed, nothing is lost or done twice, and the rate holds."""
    bug, actor = tmp_path / "bug", code_actor()
    bug.touch()
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "BUG": str(bug)}
    start_worker(environment=environment)
    killed = start_worker(environment=environment, pool="threads")
    buggy.send_many(None, [{"number": number} for number in range(COUNT)])
    dead = Delivery.objects.filter(state=State.DEAD)
    wait_until(lambda: dead.count() == COUNT, 60, "all to fail")

    surroundings = {**os.environ, **environment, "DATABASE_URL": database_url, "CELERY_BROKER_URL": broker_url}
    command = [sys.executable, "manage.py", "signalbus", "retry", "--wait"]
    said = subprocess.run(
        [*command, "receiver:*.receiver_with_a_bug"], env=surroundings, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert said.returncode == 1
    assert f"stopped because of ValueError: the bug; 1 failed again, {COUNT - 1} not retried" in said.stderr
    stopped = operation(actor, Operation.objects.get().pk)
    assert (stopped.found, stopped.changed, stopped.failed_again, len(stopped.stopped_by)) == (COUNT, 1, 1, 1)
    assert Delivery.objects.aggregate(attempts=Max("attempts"))["attempts"] == 2
    assert Delivery.objects.filter(attempts=2).count() == 1

    bug.unlink()
    began = time.monotonic()
    options = [f"group:{stopped.stopped_group}", "--rate", f"{RATE}/s", "--reason", "fixed"]
    waiting = subprocess.Popen([*command, *options], env=surroundings, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: Delivery.objects.filter(state=State.DONE).count() > COUNT / 4, 60, "a part to be done")
        killed.kill()
        out, _ = waiting.communicate(timeout=90)
    finally:
        waiting.kill()
    assert waiting.returncode == 0
    assert time.monotonic() - began > (COUNT - 11) / RATE * 0.9
    assert out.endswith(f"done: {COUNT} of {COUNT} retried, {COUNT} done, 0 failed again\n")
    assert FormEntry.objects.count() == COUNT
    assert set(Delivery.objects.values_list("state", flat=True)) == {State.DONE}

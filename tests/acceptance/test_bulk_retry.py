"""A retry of many deliveries with real workers: it stops at the first if the bug is not fixed, else all are done."""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Max

from signalbus.models import Delivery, Operation, State
from signalbus.services.actors import code_actor
from signalbus.services.bulk_operations import operation
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import buggy
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Worker

COUNT, RATE = 200, 100


def test_a_bulk_retry_stops_at_the_bug_and_keeps_its_rate_when_it_is_fixed(
    start_worker: Callable[..., Worker], tmp_path: Path
):
    """Two workers' sweepers share the work: nothing is run twice, and no more is due than the rate allows."""
    bug, actor = tmp_path / "bug", code_actor()
    bug.touch()
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "BUG": str(bug)}
    start_worker(environment=environment)
    start_worker(environment=environment, pool="threads")
    buggy.send_many(None, [{"number": number} for number in range(COUNT)])
    dead = Delivery.objects.filter(state=State.DEAD)
    wait_until(lambda: dead.count() == COUNT, 60, "all to fail")

    with pytest.raises(CommandError, match="stopped because of ValueError: the bug; 1 failed again, 199 not retried"):
        call_command("signalbus", "retry", "receiver:*.receiver_with_a_bug", "--wait", stdout=io.StringIO())
    stopped = operation(actor, Operation.objects.get().pk)
    assert (stopped.found, stopped.changed, stopped.failed_again, len(stopped.stopped_by)) == (COUNT, 1, 1, 1)
    assert Delivery.objects.aggregate(attempts=Max("attempts"))["attempts"] == 2
    assert Delivery.objects.filter(attempts=2).count() == 1

    bug.unlink()
    out, began = io.StringIO(), time.monotonic()
    call_command(
        "signalbus", "retry", f"group:{stopped.stopped_group}", "--wait", "--rate", f"{RATE}/s", "--reason", "fixed",
        stdout=out,
    )  # fmt: skip
    assert time.monotonic() - began > (COUNT - 11) / RATE * 0.9
    assert re.search(rf"done: {COUNT} of {COUNT} retried, {COUNT} done, 0 failed again\n$", out.getvalue())
    assert FormEntry.objects.count() == COUNT
    assert set(Delivery.objects.values_list("state", flat=True)) == {State.DONE}

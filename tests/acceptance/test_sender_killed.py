"""A sender that is killed in a loop of transactions."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from signalbus.models import CLOSED_STATES, Delivery
from tasks.admissions.models import Cohort
from tasks.marketing.models import FormEntry
from tests.servers import CHECKOUT, ProcessWatcher, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.servers import Worker

# SIGNALBUS_SENDERS=25: as the promise is shown, on both databases; without it a short form of the same.
KILLS = int(os.environ.get("SIGNALBUS_SENDERS", "3"))


def kill_a_sender(environment: Mapping[str, str], spread: random.Random) -> None:
    """Start the endless sender, and kill it at a random moment after some commits."""
    command = [sys.executable, "-m", "tests.acceptance.endless_sender"]
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE) as process:
        watcher = ProcessWatcher(process.pid)
        assert process.stdout is not None
        for _ in range(spread.randint(1, 30)):
            assert process.stdout.readline(), "the sender ended by itself"
        threading.Event().wait(spread.random() * 0.05)
        process.kill()
        process.wait()
        watcher.release()


def is_over() -> bool:
    """Return whether no delivery is open any more."""
    return not Delivery.objects.exclude(state__in=CLOSED_STATES).exists()


@pytest.mark.parametrize("database", ["postgres"] if KILLS < 25 else ["postgres", "sqlite"])
def test_promise_1_no_row_without_its_effect_and_no_effect_without_its_row(start_worker: Callable[..., Worker]):
    """Each committed row has exactly one effect in the end, and no other has one."""
    worker = start_worker()
    spread = random.Random(KILLS)

    for _ in range(KILLS):
        kill_a_sender(worker.environment, spread)

    wait_until(is_over, 90, "all to be done")
    saved = sorted(Cohort.objects.values_list("pk", flat=True))
    told = sorted(map(int, FormEntry.objects.filter(kind="cohort created").values_list("subject", flat=True)))
    assert saved == told
    assert len(saved) >= KILLS

"""The runs of a receiver that ends its process are limited, and only its delivery becomes dead."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from signalbus.models import Delivery, State
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import poisoned
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Worker

ATTEMPTS = 2  # that its receiver's policy allows
ALONE, AMID = 0, 99  # others in its batch
REASONS = {
    "exit": "its process was lost: exit code 1",
    "segfault": "its process was lost: signal 11 (SIGSEGV)",
    "memory": "MemoryError",
}
EACH = [(how, others) for how in ("exit", "segfault", "memory") for others in (ALONE, AMID)]
# SIGNALBUS_LONG=1: each on both databases.
IN_SHORT = [
    ("sqlite", "exit", ALONE),
    ("sqlite", "exit", AMID),
    ("postgres", "exit", AMID),
    ("postgres", "segfault", AMID),
    ("postgres", "memory", AMID),
]
RUNS = [(on, *each) for on in ("sqlite", "postgres") for each in EACH] if "SIGNALBUS_LONG" in os.environ else IN_SHORT


@pytest.mark.parametrize(("database", "how", "others"), RUNS)
def test_promise_5_only_the_poison_message_becomes_dead(
    start_worker: Callable[..., Worker], tmp_path: Path, database: str, how: str, others: int
):
    """The poison message runs at most once more than its attempts; the 99 others of its batch are done at the first
    attempt, once.
    """
    log = tmp_path / "poison"
    log.touch()
    worker = start_worker(environment={"DJANGO_SETTINGS_MODULE": "tests.settings", "POISON_LOG": str(log)})
    main = worker.pid
    poison = others // 2

    poisoned.send_many(None, [{"number": number, "poison": poison, "how": how} for number in range(others + 1)])

    over = Delivery.objects.filter(state__in=(State.DONE, State.DEAD))
    wait_until(lambda: over.count() == others + 1, 60, "all to end")
    assert 1 <= len(log.read_text(encoding="utf-8").splitlines()) <= ATTEMPTS + 1
    dead = Delivery.objects.get(state=State.DEAD)
    assert REASONS[how] in dead.error
    done = Delivery.objects.filter(state=State.DONE)
    assert set(done.values_list("attempts", flat=True)) <= {1}
    effects = FormEntry.objects.filter(kind="poisoned").values_list("subject", flat=True)
    assert sorted(map(int, effects)) == [number for number in range(others + 1) if number != poison]
    assert worker.pid == main

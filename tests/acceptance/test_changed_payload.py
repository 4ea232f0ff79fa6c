"""A rolling deploy of a changed payload: workers and senders of both versions beside each other, and rows that wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from signalbus.models import Delivery
from tasks.marketing.models import FormEntry
from tests.misbehaving.changing import VERSION, amount_of, changing
from tests.servers import CHECKOUT, wait_until

from .test_worker import TESTS_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Worker

EACH = 20  # messages that each sender sends at a time
SENDER = """
import sys, django
django.setup()
from tests.misbehaving.changing import amount_of, changing
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    changing.send(None, **amount_of(number))
"""


def code_of(version: int) -> dict[str, str | None]:
    """Return the environment of a process with the code of a version."""
    return {**TESTS_SETTINGS, "SIGNALBUS_TESTS_PAYLOAD": str(version)}


def send_as_2(numbers: range, database_url: str, broker_url: str) -> None:
    """Send with the code of version 2, in a process of its own."""
    environment = {key: value for key, value in code_of(2).items() if value is not None}
    environment |= {**os.environ, **environment, "DATABASE_URL": database_url, "CELERY_BROKER_URL": broker_url}
    command = [sys.executable, "-c", SENDER, str(numbers.start), str(numbers.stop)]
    subprocess.run(command, env=environment, cwd=CHECKOUT, check=True, timeout=120)


@pytest.mark.parametrize("database", ["postgres"])
def test_both_versions_in_turn_lose_nothing_and_confuse_nothing(
    start_worker: Callable[..., Worker], database_url: str, broker_url: str
):
    """Each message runs once, and each receiver gets the payload of its own version."""
    assert VERSION == 1  # of this process
    for number in range(EACH):
        changing.send(None, **amount_of(number))  # rows of version 1 that wait
    changing.send_later(timedelta(seconds=1), None, **amount_of(EACH))

    send_as_2(range(100, 100 + EACH), database_url, broker_url)  # senders first: there is no worker of version 2 yet
    older = start_worker(pool="solo", environment=code_of(1), timeout=120)
    wait_until(lambda: Delivery.objects.filter(state="parked").count() == EACH, 120, "version 2 to be parked")
    newer = start_worker(pool="solo", environment=code_of(2), timeout=120)  # which takes up what was parked
    for number in range(200, 200 + EACH):
        changing.send(None, **amount_of(number))  # workers first: a sender of version 1 beside them
    older.stop()
    newer.stop()
    start_worker(pool="solo", environment=code_of(2), timeout=120)

    everything = {*range(EACH + 1), *range(100, 100 + EACH), *range(200, 200 + EACH)}
    wait_until(lambda: FormEntry.objects.filter(kind__startswith="changing").count() >= len(everything), 120, "all")
    wait_until(lambda: not Delivery.objects.exclude(state="done").exists(), 120, "all to be done")
    ran = Counter(
        int(each) for each in FormEntry.objects.filter(kind__startswith="changing").values_list("subject", flat=True)
    )
    assert ran == Counter(everything)
    assert {*FormEntry.objects.filter(kind="changing 2").values_list("subject", flat=True)} >= {
        str(number) for number in range(100, 100 + EACH)
    }
    assert not Delivery.objects.exclude(error="").exclude(error__contains="has version 2").exists()

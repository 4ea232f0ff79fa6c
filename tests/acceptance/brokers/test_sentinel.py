"""A fail-over of Valkey behind a Sentinel while workers run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.db import transaction

from signalbus.models import Delivery, State
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import arriving
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.other_servers.sentinel import Sentinel
    from tests.servers import Worker

TESTS_SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.settings"}


def wait_for(label: str) -> None:
    """Wait until a message has arrived."""
    wait_until(FormEntry.objects.filter(kind="arrived", subject=label).exists, 60, f"«{label}»")


def test_a_worker_survives_a_fail_over(sentinel: Sentinel, start_worker: Callable[..., Worker]):
    """Messages before, during and after it arrive, in the same worker, at the first attempt or the next."""
    worker = start_worker(environment=TESTS_SETTINGS)
    main = worker.pid
    arriving.send(sender=None, label="before")
    wait_for("before")
    primary = sentinel.primary()

    sentinel.kill_primary()
    with transaction.atomic():  # one failure to connect for all of them
        for number in range(5):
            arriving.send(sender=None, label=f"during {number}")
    sentinel.wait_for_other_primary(primary)
    arriving.send(sender=None, label="after")

    for label in (*(f"during {number}" for number in range(5)), "after"):
        wait_for(label)
    assert worker.pid == main


def test_a_waiting_message_survives_a_fail_over(sentinel: Sentinel, start_worker: Callable[..., Worker]):
    """The replica has it: a worker that starts afterwards takes it there."""
    arriving.send(sender=None, label="waiting")
    sentinel.wait_for_replica()
    primary = sentinel.primary()

    sentinel.kill_primary()
    sentinel.wait_for_other_primary(primary)
    start_worker(environment=TESTS_SETTINGS)

    wait_for("waiting")


def test_a_send_while_all_are_away_is_recorded_at_once(sentinel: Sentinel, database_url: str, broker_url: str):
    """A sentinel that does not answer is asked once: redis-py would ask each again for seconds."""
    sentinel.kill()

    started = time.monotonic()
    arriving.send(sender=None, label="away")
    took = time.monotonic() - started

    assert Delivery.objects.filter(state=State.PENDING).count() == 1
    assert took < 2

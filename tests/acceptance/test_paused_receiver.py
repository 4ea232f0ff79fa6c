"""A paused receiver starts nothing, in workers of both pools, over a kill and a start; then everything runs once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import Max

from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, Pause, State
from signalbus.services.actors import code_actor
from signalbus.services.changes.pausing import pause, resume
from tasks.marketing.models import FormEntry
from tests.misbehaving.signals import lingering
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Worker

RECEIVER = "tests.misbehaving.receivers.receiver_that_lingers"
BACKLOG, MEANWHILE, AFTER_KILL = 300, 20, 20
RATE = 40.0


def test_a_pause_is_obeyed_within_five_seconds_and_over_restarts(start_worker: Callable[..., Worker]):
    """No delivery starts later, none is counted, lost or run twice; a rate limits the release."""
    actor = code_actor("test")
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    prefork, threads = start_worker(environment=environment), start_worker(environment=environment, pool="threads")
    lingering.send_many(None, [{"number": number} for number in range(BACKLOG)])
    done = Delivery.objects.filter(state=State.DONE)
    wait_until(lambda: done.count() > 20, what="a part of the backlog to run")

    pause("receiver", RECEIVER, actor=actor, reason="the CRM is down")
    on_its_way = Delivery.objects.filter(state__in=(State.PUBLISHED, State.RUNNING))
    wait_until(lambda: not on_its_way.exists(), 30, "the rest of the backlog to be held")
    ran_before = done.count()
    assert ran_before < BACKLOG

    for number in range(BACKLOG, BACKLOG + MEANWHILE):
        lingering.send(None, number=number)
    for pid in prefork.children():
        os.kill(pid, signal.SIGKILL)
    threads.kill()
    start_worker(environment=environment, pool="threads")  # one that has to learn of it before its first delivery
    for number in range(BACKLOG + MEANWHILE, BACKLOG + MEANWHILE + AFTER_KILL):
        lingering.send(None, number=number)
    total = BACKLOG + MEANWHILE + AFTER_KILL
    held = Delivery.objects.filter(state=State.HELD)
    wait_until(lambda: held.count() == total - ran_before, 30, "the rest to be held")
    assert set(held.values_list("attempts", "held_reason")) == {
        (0, f"receiver:{RECEIVER} is paused by test: the CRM is down")
    }
    assert done.count() == ran_before
    since = Pause.objects.get().since
    started = Delivery.objects.aggregate(last=Max("started_at"))["last"]
    assert started - since < timedelta(seconds=5)

    held.filter(pk__in=list(held.values_list("pk", flat=True)[int(RATE * 2) :])).delete()  # or it would take long
    began = time.monotonic()
    count = resume("receiver", RECEIVER, actor=actor, rate=RATE)
    wait_until(lambda: done.count() == ran_before + count, 60, "all to be done")

    assert time.monotonic() - began > count / RATE * 0.9
    assert set(Delivery.objects.values_list("state", "attempts")) == {(State.DONE, 1)}
    assert set(Counter(FormEntry.objects.values_list("subject", flat=True)).values()) == {1}
    assert FormEntry.objects.count() == ran_before + count
    wait_until(lambda: not ledger.pauses(), what="the pause to end")

"""Receivers that leave an effect in the ledger's database, each in the way of its name."""

from __future__ import annotations

import os
import random
import signal as os_signal
import time
from pathlib import Path
from typing import Any

from signalbus import Retry, current, receiver
from tests.chaos.journal import Journal
from tests.chaos.roles import POISON_ATTEMPTS, WORK_SECONDS

from . import signals
from .models import Account, Effect

SOON = Retry(max_attempts=20, base_delay=0.2, max_delay=1.0)
POISON = Retry(max_attempts=POISON_ATTEMPTS, base_delay=0.1, jitter=False)


def leave_effect() -> None:
    """Write the effect of the running delivery."""
    delivery = current()
    assert delivery is not None
    Effect.objects.create(message=delivery.message_id, receiver=delivery.receiver, at=time.monotonic())


def note_run() -> None:
    """Record the run of a receiver that cannot commit."""
    delivery = current()
    assert delivery is not None
    Journal(Path(os.environ["CHAOS_JOURNAL"])).note("ran", delivery.message_id, delivery.receiver)


@receiver(signals.steady, retry=SOON)
def record(**kwargs: Any) -> None:
    """Leave an effect."""
    leave_effect()


@receiver(signals.paired, retry=SOON)
def record_beside(**kwargs: Any) -> None:
    """Leave an effect, beside another receiver of the same message."""
    leave_effect()


@receiver(signals.paired, retry=SOON, atomic=False)
def record_outside(**kwargs: Any) -> None:
    """Leave an effect in a commit of its own."""
    leave_effect()


@receiver(signals.flaky, retry=SOON)
def record_at_last(**kwargs: Any) -> None:
    """Leave an effect that is often rolled back."""
    leave_effect()
    if random.random() < 0.3:
        raise ValueError("no luck this time")


@receiver(signals.pausing, retry=SOON)
def record_after_a_pause(**kwargs: Any) -> None:
    """Leave an effect, and hold the transaction for up to a second."""
    leave_effect()
    time.sleep(random.random())


@receiver(signals.slow, retry=SOON, queue="slow")
def record_slowly(**kwargs: Any) -> None:
    """Leave an effect, slowly."""
    time.sleep(0.05)
    leave_effect()


@receiver(signals.deadly, retry=POISON)
def receiver_that_kills_its_process(**kwargs: Any) -> None:
    """Die as in an out-of-memory kill."""
    note_run()
    os.kill(os.getpid(), os_signal.SIGKILL)


@receiver(signals.deadly, retry=POISON)
def receiver_that_eats_memory(**kwargs: Any) -> None:
    """Raise an error that ends a stock worker."""
    note_run()
    raise MemoryError("all of it")


@receiver(signals.deadly, retry=POISON)
def receiver_that_exits(**kwargs: Any) -> None:
    """Try to end the process."""
    note_run()
    raise SystemExit(3)


def _lock(*order: int) -> None:
    for number in order:
        Account.objects.select_for_update().get_or_create(pk=number)
        time.sleep(0.02)
    leave_effect()


@receiver(signals.crossing, retry=SOON)
def lock_one_way(**kwargs: Any) -> None:
    """Lock two rows."""
    _lock(1, 2)


@receiver(signals.crossing, retry=SOON)
def lock_the_other_way(**kwargs: Any) -> None:
    """Lock the same rows, the other one first."""
    _lock(2, 1)


@receiver(signals.grown, retry=SOON)
def record_as_always(**kwargs: Any) -> None:
    """Leave an effect, in old and new workers."""
    leave_effect()


@receiver(signals.working, retry=SOON)
def record_after_work(**kwargs: Any) -> None:
    """Leave an effect after the same work as procrastinate's task."""
    time.sleep(WORK_SECONDS)
    leave_effect()


if not signals.OLD:

    @receiver(signals.grown, retry=SOON)
    def record_since_lately(**kwargs: Any) -> None:
        """Leave an effect, in new workers."""
        leave_effect()

    @receiver(signals.young, retry=SOON)
    def record_what_is_new(**kwargs: Any) -> None:
        """Leave an effect for a signal that is new."""
        leave_effect()

"""Receivers that do as little as can be counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import signals
from benchmarks.tally import tally
from signalbus import Retry, receiver
from tasks.admissions.models import Academy, Cohort

if TYPE_CHECKING:
    from django.db.models import Model

UNCONSUMED = "unconsumed"  # the queue of what must stay untouched, its rows too, until all of it is given to a worker


@receiver([signals.plain, signals.bulky], sender=Cohort, atomic=False)
def nothing(sender: type[Model], **kwargs: Any) -> None:
    """Do nothing."""
    tally()


@receiver(signals.piled, sender=Cohort, atomic=False, queue=UNCONSUMED)
def nothing_piled(sender: type[Model], **kwargs: Any) -> None:
    """Do nothing, late."""
    tally()


@receiver(signals.atomic, sender=Cohort)
def nothing_atomic(sender: type[Model], **kwargs: Any) -> None:
    """Do nothing, in a transaction."""
    tally()


@receiver(signals.stored, sender=Cohort, queue=UNCONSUMED)
def nothing_stored(sender: type[Model], **kwargs: Any) -> None:
    """Do nothing, in the transaction of the receipt."""
    tally()


@receiver(signals.fetched, sender=Cohort)
def fetch(sender: type[Model], instance: Cohort, created: bool, **kwargs: Any) -> None:
    """Use the instance, which was loaded in the transaction."""
    assert instance.name
    tally()


@receiver([signals.quick, signals.slow, signals.burst, signals.turning], atomic=False)
def work(sender: None, sent: float, seconds: float, **kwargs: Any) -> None:
    """Record how late it is, unless it is known to be slow, and take some time."""
    tally(0.0 if seconds else sent)
    time.sleep(seconds)


def _third(sender: type[Model], **kwargs: Any) -> None:
    """Be one of three."""


signals.kept.connect(_third, sender=Cohort, dispatch_uid="benchmarks.kept")
for _number in range(3):
    signals.kept_by_three.connect(_third, sender=Cohort, dispatch_uid=f"benchmarks.third_{_number}")


@receiver([signals.durable, signals.fleeting])
def write(sender: None, **kwargs: Any) -> None:
    """Write a row."""
    Academy.objects.create(name="Academy", slug=uuid4().hex)


def here(sender: type[Model], **kwargs: Any) -> None:
    """Run in the sender's process."""


signals.inline.connect(here, sender=Cohort, inline=True)
signals.django_inline.connect(here, sender=Cohort)


@receiver(signals.succeeding)
def succeed(sender: None, sent: float = 0.0, **kwargs: Any) -> None:
    """Write a row, and record how late it is."""
    write(None)
    tally(sent)


@receiver(signals.failing, retry=Retry(max_attempts=3, base_delay=3600.0))
def fail_thrice(sender: None, **kwargs: Any) -> None:
    """Write a row, and fail; the benchmark makes the retries due."""
    write(None)
    tally()
    raise LookupError("the other side does not answer")


@receiver(signals.retried, retry=Retry(max_attempts=10_000, base_delay=1.0, max_delay=1.0))
def fail_on(sender: None, **kwargs: Any) -> None:
    """Write a row, and fail, for as long as the benchmark lasts."""
    write(None)
    tally()
    raise LookupError("the other side does not answer")


@receiver([signals.announced, signals.unique, signals.debounced])
def hear(sender: None, slug: str, **kwargs: Any) -> None:
    """Do nothing."""

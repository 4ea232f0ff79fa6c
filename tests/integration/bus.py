"""A worker in the test's own process: takes Celery messages off the real broker, and delivers them."""

from __future__ import annotations

import base64
import json
import signal as os_signal
import threading
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection, connections
from django.db.models import F

from signalbus import Signal, conf
from signalbus.celery import get_app
from signalbus.ledger.base.clock import Now
from signalbus.ledger.sweeps.due import GRACE
from signalbus.models import Delivery, Lane
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.sweeper import mark, sweep
from tasks.admissions.models import Academy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUEUE = "signalbus"
NUMBERS = count()


class Bus:
    """The broker as a worker sees it.

    Args:
        url: its address for redis-py.
    """

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url)

    def take(self, queue: str = QUEUE) -> list[list[str]]:
        """Take all Celery messages out of a queue: for each the texts it holds."""
        taken = []
        while (item := self.client.rpop(queue)) is not None:
            args, kwargs, _ = json.loads(base64.b64decode(json.loads(item)["body"]))
            assert not kwargs
            taken.append(args[0])
        return taken

    def work(self, queue: str = QUEUE, *, redelivered: bool = False) -> int:
        """Deliver all that a queue holds, as a worker would; returns how many Celery messages that were."""
        taken = self.take(queue)
        for texts in taken:
            deliver(texts, queue=queue, redelivered=redelivered)
        return len(taken)

    def come_again(self) -> int:
        """Let time pass until everything in the ledger is due, publish it, and work."""
        Delivery.objects.exclude(state__in=("done", "dead", "skipped", "discarded")).update(due_at=Now())
        published = sweep()
        self.work()
        return published


def rows() -> list[tuple[str, str, int]]:
    """Return (receiver, state, attempts) of all deliveries in the ledger."""
    return sorted(Delivery.objects.values_list("receiver", "state", "attempts"))


def only() -> Delivery:
    """Return the ledger's only delivery."""
    return Delivery.objects.select_related("message").get()


def new_signal(**options: Any) -> Signal:
    """Make a signal that no other test has had: a worker looks it up by name, and a dead one may linger.

    Not durable if nothing is said: its deliveries have rows only once something has gone wrong.
    """
    return Signal(f"tests.{next(NUMBERS)}", **{"durable": False, **options})


def connect(signal: Signal, function: Callable[..., Any], uid: str | None = None, **options: Any) -> Callable[..., Any]:
    """Connect a local function under a name that lasts as long as the signal."""
    signal.connect(function, weak=False, dispatch_uid=uid or function.__name__, **options)
    return function


def fails(signal: Signal, error: BaseException, uid: str = "failing", **options: Any) -> None:
    """Connect a receiver that raises."""

    def receiver_that_raises(**kwargs):
        raise error

    connect(signal, receiver_that_raises, uid, **options)


def text_of(body: str) -> str:
    """Sign a body as a key holder would."""
    return conf.signer().sign(body)


@contextmanager
def eager() -> Iterator[None]:
    """Run Celery tasks where they are called, as CELERY_TASK_ALWAYS_EAGER does."""
    settings = get_app().conf
    settings.task_always_eager = True
    try:
        yield
    finally:
        settings.task_always_eager = False


def let_wait(seconds: float = 3600) -> None:
    """Let time pass since everything was published, and since every marker."""
    passed = timedelta(seconds=seconds)
    Delivery.objects.update(due_at=F("due_at") - passed)
    Lane.objects.update(**{name: F(name) - passed for name in ("marked_at", "returned_at", "seen_at", "proven_at")})


def prove_lost(bus: Bus) -> None:
    """Let time pass and markers come back, until what is not in the queue is known to be lost."""
    let_wait()
    for _ in range(2):
        mark()
        bus.work()
        let_wait(GRACE)


def recover(bus: Bus) -> int:
    """Let the sweeper find what was lost, and deliver it; return how many were published again."""
    prove_lost(bus)
    published = sweep()
    bus.work()
    return published


def elsewhere(work: Callable[[], Any]) -> list[Any]:
    """Do something on another connection, as another process would, and return what came out."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)
    return results


def cut_off_at_the_beginning(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a time limit strike when the database is in a transaction already, and Django does not know it yet."""
    connect(signal, lambda **kwargs: Academy.objects.create(name="ours", slug="ours"), "receiver")
    signal.send(None)
    (texts,) = bus.take()
    name = "_start_transaction_under_autocommit" if connection.vendor == "sqlite" else "_set_autocommit"
    begin = getattr(connection, name)

    def cut_off(*arguments: Any) -> None:
        begin(*arguments)
        raise SoftTimeLimitExceeded

    with monkeypatch.context() as patch:
        patch.setattr(connection, name, cut_off)
        with pytest.raises(SoftTimeLimitExceeded):
            deliver(texts, queue=QUEUE)

    assert elsewhere(lambda: Academy.objects.create(name="another's", slug="anothers")) != []
    deliver(texts, queue=QUEUE)
    assert elsewhere(Academy.objects.count) == [2]


@contextmanager
def soft_limit(seconds: float) -> Iterator[None]:
    """Raise what Celery's soft time limit raises, in the way that a child's signal handler does it."""

    def ring(number: int, frame: object) -> None:
        raise SoftTimeLimitExceeded

    former = os_signal.signal(os_signal.SIGALRM, ring)
    os_signal.setitimer(os_signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        os_signal.setitimer(os_signal.ITIMER_REAL, 0)
        os_signal.signal(os_signal.SIGALRM, former)

"""A worker in the test's own process: it takes Celery messages off the real broker, and delivers them."""

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
from signalbus.models import Delivery, QueueState
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.due_publication import mark, sweep
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
        """Take all Celery messages out of a queue; return the texts of each."""
        taken = []
        while (item := self.client.rpop(queue)) is not None:
            args, kwargs, _ = json.loads(base64.b64decode(json.loads(item)["body"]))
            assert not kwargs
            taken.append(args[0])
        return taken

    def work(self, queue: str = QUEUE, *, redelivered: bool = False) -> int:
        """Deliver all messages of a queue, as a worker would; return the number of Celery messages."""
        taken = self.take(queue)
        for texts in taken:
            deliver(texts, queue=queue, redelivered=redelivered)
        return len(taken)

    def come_again(self) -> int:
        """Let time pass until every row in the ledger is due, publish these, and work."""
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
    """Make a signal of a new name, because a worker looks it up by name, and an old one may still exist.

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
    """Run Celery tasks in the caller, as CELERY_TASK_ALWAYS_EAGER does."""
    settings = get_app().conf
    settings.task_always_eager = True
    try:
        yield
    finally:
        settings.task_always_eager = False


def let_wait(seconds: float = 3600) -> None:
    """Let time pass since every publication and every marker."""
    passed = timedelta(seconds=seconds)
    Delivery.objects.update(due_at=F("due_at") - passed)
    QueueState.objects.update(
        **{name: F(name) - passed for name in ("marked_at", "returned_at", "seen_at", "proven_at")}
    )


def prove_lost(bus: Bus) -> None:
    """Let time pass and markers return, until deliveries that are not in the queue are known to be lost."""
    let_wait()
    for _ in range(2):
        mark()
        bus.work()
        let_wait(GRACE)


def recover(bus: Bus) -> int:
    """Let the sweeper publish lost deliveries, and deliver them; return their number."""
    prove_lost(bus)
    published = sweep()
    bus.work()
    return published


def elsewhere(work: Callable[[], Any]) -> list[Any]:
    """Call a function on another connection, as another process would, and return its result."""
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


def interrupt_as_a_transaction_begins(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a time limit strike when the database is in a transaction, and Django does not know it yet."""
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

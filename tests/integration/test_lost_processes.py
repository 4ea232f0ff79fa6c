"""A child of the pool that is lost while it runs a delivery: a failed attempt, with a reason and a back-off."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connection, transaction

from signalbus import Retry, Signal, conf
from signalbus.events import listen, unlisten
from signalbus.ledger import attempts, operations
from signalbus.models import Delivery, State
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.settling import lost_processes
from signalbus.receiving.settling.lost_processes import Loss, Losses
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.wire.message import from_body

from .bus import QUEUE, Bus, connect, elsewhere, new_signal, only, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from signalbus.events import Event

CHILD = "here:7"
SLOW = Retry(max_attempts=2, base_delay=30, jitter=False)
REASON = "its process was lost: signal 9 (SIGKILL)"


@pytest.fixture
def durable() -> Signal:
    """A durable signal without receivers."""
    return new_signal(durable=True)


class Child:
    """A child of the pool, which is lost while it runs a delivery.

    Args:
        losses: those of its worker.
    """

    def __init__(self, losses: Losses) -> None:
        self.losses = losses
        self.requeued: list[list[tuple[str, str, int]]] = []  # what the ledger said when the message went back
        self.acknowledged: list[list[tuple[str, str, int]]] = []  # what it said when the message was acknowledged

    def claim(self, delivery: UUID) -> None:
        """Claim a delivery, as it does before a run that is suspect, or has no transaction."""
        assert attempts.claim(delivery, worker=CHILD, lease=20, using="default") is not None

    def loss(self, text: str, place: int | None = None, *, alone: bool = False) -> Loss:
        """Return what its worker's main process knows of its end."""
        return Loss(
            text, place, CHILD, "signal 9 (SIGKILL)", lambda: self.requeued.append(rows()),
            (lambda: self.acknowledged.append(rows())) if alone else None,
        )  # fmt: skip

    def is_lost(self, text: str, place: int | None = None, *, alone: bool = False) -> float | None:
        """Have its end recorded, as the sweeper's thread does; return in how many seconds it looks again.

        Args:
            text: what it ran.
            place: the index of the recipient.
            alone: whether the Celery message has no other text.
        """
        self.losses.open(lambda: None)
        assert self.losses.add(self.loss(text, place, alone=alone))
        assert self.requeued == []
        return self.losses.settle()


@pytest.fixture
def child() -> Child:
    """A child of the pool."""
    return Child(Losses())


@pytest.fixture
def told() -> Iterator[list[tuple[str, int, str, str, float]]]:
    """The events of failed attempts."""
    heard: list[tuple[str, int, str, str, float]] = []

    @listen("failed", "dead")
    def hear(event: Event) -> None:
        heard.append((event.kind, event.delivery.attempt, str(event.error), event.worker, event.delay))

    yield heard
    unlisten(hear)


def receiver_that_must_not_run(**kwargs: Any) -> None:
    """Fail."""
    raise AssertionError


@pytest.mark.parametrize("atomic", [True, False])
def test_a_lost_process_is_a_failed_attempt(bus: Bus, durable: Signal, child: Child, caplog, atomic: bool):
    """The failed attempt is recorded with its reason before the message is requeued, and due after the receiver's back-
    off.
    """
    connect(durable, receiver_that_must_not_run, "killer", retry=SLOW, atomic=atomic)
    durable.send(None)
    ((text,),) = bus.take()
    if not atomic:  # it is claimed before it runs
        child.claim(only().pk)

    assert child.is_lost(text) is None

    assert child.requeued == [[("killer", "pending", 1)]]
    lost = only()
    assert lost.error == REASON
    assert lost.failed_at is not None
    assert timedelta(seconds=29) < lost.due_at - lost.failed_at < timedelta(seconds=31)
    assert list(operations.failed()) == [lost]
    assert REASON in caplog.text
    deliver([text], queue=QUEUE, redelivered=True)  # as it comes back
    assert rows() == [("killer", "pending", 1)]
    assert sweep() == 0


@pytest.mark.parametrize("durable_signal", [True, False])
def test_a_message_of_one_delivery_is_acknowledged(bus: Bus, child: Child, durable_signal: bool):
    """The row is due again: a copy of the message beside the retry would end the retry's claim without its reason."""
    signal = new_signal(durable=durable_signal)
    connect(signal, receiver_that_must_not_run, "killer", retry=SLOW)
    signal.send(None)
    ((text,),) = bus.take()

    child.is_lost(text, alone=True)

    assert child.acknowledged == [[("killer", "pending", 1)]]
    assert child.requeued == []


@pytest.mark.parametrize(("recipients", "place"), [(2, 0), (2, None), (1, None)])
def test_a_message_that_is_still_needed_is_requeued(bus: Bus, durable: Signal, child: Child, recipients: int, place):
    """It names another receiver, or its delivery has been settled by somebody else."""
    for number in range(recipients):
        connect(durable, receiver_that_must_not_run, f"killer-{number}", retry=SLOW)
    durable.send(None)
    ((text,),) = bus.take()
    if recipients == 1:
        Delivery.objects.update(state=State.RUNNING, worker="elsewhere:8", attempts=1)

    child.is_lost(text, place, alone=True)

    assert child.acknowledged == []
    assert len(child.requeued) == 1


def test_the_next_run_is_claimed_first(bus: Bus, durable: Signal, child: Child):
    """The claim counts the run, whichever process is lost with it."""
    seen = []
    connect(durable, lambda **kwargs: seen.append(elsewhere(rows)), "killer", retry=SLOW)
    durable.send(None)
    ((text,),) = bus.take()
    child.is_lost(text)

    bus.come_again()

    if connection.vendor != "sqlite":  # whose only writer is the receiver
        assert seen == [[[("killer", "running", 2)]]]
    assert rows() == [("killer", "done", 2)]
    assert only().error == ""


@pytest.mark.parametrize("durable_signal", [True, False])
def test_a_redelivered_message_says_that_its_worker_was_lost(bus: Bus, child: Child, durable_signal: bool):
    """Its unclaimed run is not counted, since it may never have begun; `failed` lists it while it runs again."""
    signal = new_signal(durable=durable_signal)
    connect(signal, lambda **kwargs: None, "killer", retry=SLOW)
    signal.send(None)
    ((text,),) = bus.take()
    seen: list[tuple[str, int, str]] = []

    @listen("claimed")
    def look(event: Event) -> None:
        seen.extend(operations.failed().values_list("state", "attempts", "error"))

    try:
        deliver([text], queue=QUEUE, redelivered=True)
    finally:
        unlisten(look)

    ((state, number, error),) = seen
    assert (state, number) == ("running", 1)
    assert "a worker that had taken it was lost" in error
    assert rows() == [("killer", "done", 1)]
    assert only().error == ""


@pytest.mark.parametrize("durable_signal", [True, False])
def test_each_delivery_of_a_lost_batch_says_so_until_it_has_run(bus: Bus, durable_signal: bool):
    """Any of them may have ended the worker: each is published alone."""
    signal = new_signal(durable=durable_signal)
    for name in ("one", "two"):
        connect(signal, lambda **kwargs: None, name)
    signal.send(None)
    ((text,),) = bus.take()

    deliver([text], queue=QUEUE, redelivered=True)

    listed = list(operations.failed().values_list("state", "attempts", "error"))
    assert listed == [("pending", 0, lost_processes.WORKER_LOST)] * 2
    bus.come_again()
    assert rows() == [("one", "done", 1), ("two", "done", 1)]
    assert list(operations.failed()) == []


def test_the_error_of_the_last_attempt_is_kept_when_a_message_is_redelivered(bus: Bus, durable: Signal, child: Child):
    """It says more than the loss of a worker."""
    connect(durable, receiver_that_must_not_run, "killer", retry=SLOW)
    durable.send(None)
    Delivery.objects.update(error="the error before")

    attempts.claim(only().pk, worker=CHILD, lease=20, note="lost", using="default")

    assert only().error == "the error before"


@pytest.mark.parametrize("atomic", [True, False])
def test_the_last_lost_attempt_makes_the_delivery_dead(bus: Bus, durable: Signal, child: Child, told, atomic: bool):
    """Each lost run is reported like a failure of the receiver, and counts as an attempt."""
    connect(durable, receiver_that_must_not_run, "killer", retry=SLOW, atomic=atomic)
    durable.send(None)
    for attempt, state in ((1, "pending"), (2, "dead")):
        ((text,),) = bus.take() if attempt == 1 else _next(bus)
        if attempt == 2 or not atomic:
            child.claim(only().pk)
        child.is_lost(text)
        assert child.requeued.pop() == [("killer", state, attempt)]

    assert only().error == REASON
    assert told == [("failed", 1, REASON, CHILD, 30.0), ("dead", 2, REASON, CHILD, 0.0)]
    deliver([text], queue=QUEUE, redelivered=True)
    assert rows() == [("killer", "dead", 2)]


def _next(bus: Bus) -> list[list[str]]:
    Delivery.objects.update(due_at=only().created_at)
    assert sweep() == 1
    return bus.take()


def test_a_message_without_a_row_gets_one(bus: Bus, signal: Signal, child: Child):
    """Promise 4: a message of a non-durable signal is durable after the first failure."""
    connect(signal, receiver_that_must_not_run, "killer", retry=SLOW)
    signal.send(None)
    ((text,),) = bus.take()

    child.is_lost(text)

    assert child.requeued == [[("killer", "pending", 1)]]
    assert only().error == REASON
    deliver([text], queue=QUEUE, redelivered=True)
    assert rows() == [("killer", "pending", 1)]


def test_a_recipient_that_did_not_run_has_no_failed_attempt(bus: Bus, durable: Signal, child: Child):
    """If the worker knows which recipient ran, only its delivery has failed; the others go on as before."""
    connect(durable, lambda **kwargs: None, "before")
    connect(durable, receiver_that_must_not_run, "killer", retry=SLOW)
    connect(durable, lambda **kwargs: None, "after")
    durable.send(None)
    ((text,),) = bus.take()

    child.is_lost(text, 1)

    assert child.requeued == [[("after", "published", 0), ("before", "published", 0), ("killer", "pending", 1)]]
    deliver([text], queue=QUEUE, redelivered=True)
    sweep()
    bus.work()
    assert rows() == [("after", "done", 1), ("before", "done", 1), ("killer", "pending", 1)]


def test_no_attempt_is_counted_if_the_running_recipient_is_unknown(bus: Bus, durable: Signal, child: Child):
    """One of several recipients ran, and it is unknown which: all run alone."""
    connect(durable, lambda **kwargs: None, "one")
    connect(durable, lambda **kwargs: None, "another")
    durable.send(None)
    ((text,),) = bus.take()

    child.is_lost(text)

    assert child.requeued == [[("another", "published", 0), ("one", "published", 0)]]


@pytest.mark.parametrize("state", [State.RUNNING, State.DONE, State.DISCARDED, State.PENDING])
def test_deliveries_that_the_child_did_not_run_do_not_change(bus: Bus, durable: Signal, child: Child, state: State):
    """Such deliveries were done before, or another worker has claimed them since."""
    connect(durable, receiver_that_must_not_run, "receiver")
    durable.send(None)
    ((text,),) = bus.take()
    Delivery.objects.update(state=state, attempts=1, worker="elsewhere:7")

    assert child.is_lost(text) is None

    assert child.requeued == [[("receiver", state.value, 1)]]


@pytest.mark.parametrize("text", ["garbage", "0.0.0", ""])
def test_an_unverified_text_is_requeued(bus: Bus, durable: Signal, child: Child, text: str):
    """The next worker handles it."""
    assert child.is_lost(text) is None

    assert child.requeued == [[]]


@pytest.mark.parametrize("database", ["postgres"])
def test_a_row_that_the_database_has_not_freed_yet_is_waited_for(bus: Bus, durable: Signal, child: Child):
    """The server notices the end of the process a moment later; meanwhile the message stays."""
    connect(durable, receiver_that_must_not_run, "killer", retry=SLOW)
    durable.send(None)
    ((text,),) = bus.take()
    with transaction.atomic():
        attempts.take(only().pk, worker=CHILD, using="default")
        assert elsewhere(lambda: child.is_lost(text)) == [lost_processes.AGAIN]
        assert child.requeued == []
        transaction.set_rollback(True)

    assert child.losses.settle() is None

    assert child.requeued == [[("killer", "pending", 1)]]


@pytest.mark.parametrize("database", ["postgres"])
def test_a_row_locked_by_another_worker_is_not_waited_for_long(bus: Bus, durable: Signal, child: Child, monkeypatch):
    """The other worker may run a copy of the message: the message is requeued, and dropped there."""
    monkeypatch.setattr(lost_processes, "PATIENCE", 0.0)
    connect(durable, receiver_that_must_not_run, "receiver")
    durable.send(None)
    ((text,),) = bus.take()
    with transaction.atomic():
        attempts.take(only().pk, worker="elsewhere:7", using="default")
        assert elsewhere(lambda: child.is_lost(text)) == [None]

    assert child.requeued == [[("receiver", "published", 0)]]


def test_a_message_is_requeued_during_an_outage_of_the_ledger(bus: Bus, durable: Signal, child: Child, monkeypatch):
    """The loss of its process is not counted then, like that of a whole worker."""

    def away(delivery: object) -> None:
        raise DatabaseError("away")

    connect(durable, receiver_that_must_not_run, "killer")
    durable.send(None)
    ((text,),) = bus.take()
    with monkeypatch.context() as patch:
        patch.setattr(attempts, "last_run", away)
        with pytest.raises(DatabaseError):
            child.is_lost(text)

    assert child.requeued == [[("killer", "published", 0)]]


def test_remaining_losses_are_requeued_at_a_shutdown(database_url: str, child: Child):
    """No more are accepted."""
    loss = child.loss("text")
    assert not child.losses.add(loss)
    child.losses.open(lambda: None)
    assert child.losses.add(loss)

    child.losses.close()

    assert child.requeued == [[]]
    assert not child.losses.add(loss)


@pytest.mark.parametrize("which", ["own", "another's"])
def test_the_head_of_an_ordered_signal_has_failed(bus: Bus, child: Child, which: str):
    """The message only says that its key has something to run."""
    ordered = new_signal(durable=True, ordered_by="key")
    connect(ordered, receiver_that_must_not_run, "killer", retry=SLOW)
    for number in range(2):
        ordered.send(None, key="k", number=number)
    texts = [text for (text,) in bus.take()]
    first = Delivery.objects.get(message=from_body(conf.signer().verify(texts[0])).id)
    if which == "another's":  # claimed, as each is whose message is not the one at hand
        child.claim(first.pk)

    child.is_lost(texts[0 if which == "own" else 1])

    assert child.requeued == [[("killer", "pending", 1), ("killer", "published", 0)]]
    first.refresh_from_db()
    assert (first.state, first.error) == ("pending", REASON)

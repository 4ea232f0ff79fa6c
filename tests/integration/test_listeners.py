"""Listeners observe: they cost and change nothing for messages and deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from signalbus.receiving.process.receiver_runtimes import runtimes
from signalbus.receiving.running import attempt, group_commit
from tasks.admissions.models import Academy

from .bus import Bus, connect, new_signal, rows
from .test_several_databases import other
from .test_transactions import rolled_back

if TYPE_CHECKING:
    from signalbus import Signal
    from signalbus.events import Event

__all__ = ["other"]

COUNTS = pytest.mark.parametrize("count", [1, 3], ids=["alone", "in a group commit"])


@pytest.fixture
def durable(monkeypatch) -> Signal:
    """A durable signal, whose receiver writes a row and may run in a group commit, however slow this machine is."""
    for module in (attempt, group_commit):
        monkeypatch.setattr(module, "WORTH_TELLING", 3600.0)
    monkeypatch.setattr(group_commit, "BRIEF", 60.0)
    monkeypatch.setattr(group_commit, "LIMITS", dict.fromkeys(group_commit.LIMITS, 60.0))
    monkeypatch.setattr(runtimes, "expected", lambda receiver: 0.0)
    monkeypatch.setattr(runtimes, "_alone_until", {})
    signal = new_signal(durable=True)
    connect(signal, write_academy, "receiver")
    return signal


def write_academy(slug, **kwargs):
    """Receive in a worker."""
    Academy.objects.create(name=slug, slug=slug)


def send(signal: Signal, count: int) -> None:
    """Send several messages in one batch."""
    signal.send_many(None, [{"slug": f"a-{number}"} for number in range(count)])


@COUNTS
def test_a_listener_of_started_cannot_break_the_receivers_transaction(
    bus: Bus, durable: Signal, listening, caplog, count: int
):
    """The query of such a listener is refused before the database gets it, and the receiver runs once."""

    @listening("started")
    def listener_that_writes(event: Event) -> None:
        Academy.objects.update(name="a listener's")  # which Django runs in a block of its own

    @listening("started")
    def listener_that_queries(event: Event) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    send(durable, count)
    bus.work()

    assert rows() == [("receiver", "done", 1)] * count
    assert Academy.objects.count() == count
    logged = [record.exc_info for record in caplog.records if "listener_that_queries" in record.getMessage()]
    assert len(logged) == count
    assert all(info is not None and 'listen to "done"' in str(info[1]) for info in logged)


@COUNTS
def test_listeners_add_no_statement(bus: Bus, durable: Signal, listening, count: int):
    """Sending, running and settling take the same statements with and without listeners."""

    def statements() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            send(durable, count)
            bus.work()
        Academy.objects.all().delete()
        return [str(query["sql"]).split(" ")[0] for query in queries]

    statements()  # what is asked once in a process
    before = statements()
    heard: list[Event] = []
    listening("sent", "recorded", "published", "claimed", "started", "done")(heard.append)
    assert statements() == before
    assert len(heard) == 5 * count


def test_a_message_is_sent_once_each_commit_that_decides_is_over(bus: Bus, durable: Signal, listening, other: str):
    """A sender in two transactions has sent nothing until the deciding one commits; a rollback sends no event."""
    heard: list[str] = []
    listening("sent", "recorded", "published")(lambda event: heard.append(event.kind))
    with rolled_back(using=other):
        send(durable, 1)
    assert heard == []
    with transaction.atomic(using=other):
        send(durable, 1)
        with transaction.atomic():
            send(durable, 1)
            assert heard == []
        assert heard == ["sent", "recorded", "published"]
    assert heard == ["sent", "recorded", "published"] * 2


def test_a_listeners_message_belongs_to_the_deliverys_cascade(bus: Bus, durable: Signal, listening):
    """The message has the delivery's message as its parent, and a loop of listeners ends."""
    log = new_signal(durable=True)
    connect(log, lambda **kwargs: None, "log")
    sent: list[Event] = []

    @listening("sent")
    def listener_that_sends(event: Event) -> None:
        sent.append(event)
        log.send(None)

    with override_settings(SIGNALBUS={"MAX_CASCADE": 4}):
        send(durable, 1)

    first, second, *_ = sent
    assert (second.delivery.parent, second.delivery.root) == (first.delivery.message_id, first.delivery.message_id)
    assert len(sent) == 4
    assert {event.delivery.root for event in sent} == {first.delivery.message_id}

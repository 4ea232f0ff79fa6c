"""Deduplication: a waiting equal message stands for the next one, and of a burst only the last is sent."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import signalbus
from signalbus import Signal
from signalbus.ledger import sweeps as ledger
from signalbus.models import Delivery, Key, StoredMessage
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.testing import captured
from tasks.admissions.models import Academy

from .bus import QUEUE, Bus, connect, elsewhere, new_signal, only, rows

if TYPE_CHECKING:
    from collections.abc import Callable


def hearing(ran: list[Any], **options: Any) -> Signal:
    """Make a durable signal with a receiver that records its calls."""
    signal = new_signal(durable=True, **options)
    connect(signal, lambda slug=None, number=0, **_: ran.append((slug, number)), "receiver")
    return signal


def pass_time(seconds: float) -> None:
    """Make all waiting deliveries due this much earlier, and each burst begin this much earlier."""
    Delivery.objects.update(due_at=F("due_at") - timedelta(seconds=seconds))
    Key.objects.update(since=F("since") - timedelta(seconds=seconds))


def together(count: int, work: Callable[[], object]) -> list[object]:
    """Call functions on several connections at once, and return their results."""
    results: list[object] = []
    start = threading.Barrier(count)

    def run() -> None:
        try:
            start.wait(timeout=30)
            results.append(work())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


def test_an_equal_message_is_not_sent_while_one_waits(bus: Bus, ran: list[Any]):
    """The second send returns the first message's id; another key is another message."""
    signal = hearing(ran, unique="slug")

    first = signal.send(None, slug="a", number=1)
    second = signal.send(None, slug="a", number=2)
    other = signal.send(None, slug="b", number=3)

    assert second.id == first.id != other.id
    assert StoredMessage.objects.count() == 2
    sweep()
    bus.work()
    assert sorted(ran) == [("a", 1), ("b", 3)]


def test_after_it_has_run_an_equal_message_is_sent(bus: Bus, ran: list[Any]):
    """A done message stands for no other."""
    signal = hearing(ran, unique="slug")
    first = signal.send(None, slug="a", number=1)
    bus.work()

    second = signal.send(None, slug="a", number=2)

    assert second.id != first.id
    bus.work()
    assert ran == [("a", 1), ("a", 2)]


def test_an_equal_message_is_sent_while_one_runs(bus: Bus, ran: list[Any]):
    """The running receiver may have read older rows than the sender's commit."""
    signal = hearing(ran, unique="slug")

    def receiver_that_sends(**_):
        if len(ran) < 2:
            signal.send(None, slug="a", number=2)

    connect(signal, receiver_that_sends, "sender")
    signal.send(None, slug="a", number=1)

    bus.work()
    sweep()
    bus.work()

    assert ("a", 2) in ran


@pytest.mark.parametrize(
    ("unique", "equal"),
    [
        (True, False),
        (lambda payload: payload["slug"].lower(), True),
        ("absent", False),
        (lambda _payload: None, False),
    ],
)
def test_unique_names_the_compared_value(bus: Bus, ran: list[Any], unique: Any, equal: bool):
    """True means the whole payload, a function its result; without a value each message is sent."""
    signal = hearing(ran, unique=unique)

    first = signal.send(None, slug="a", number=1)
    second = signal.send(None, slug="A", number=1)

    assert (first.id == second.id) is equal


def test_equal_payloads_may_differ_in_order(bus: Bus, ran: list[Any]):
    """Keywords, sets and rows are equal if their values are."""
    signal = hearing(ran, unique=True)
    academy = Academy.objects.create(name="A", slug="a")
    names = [f"n{n}" for n in range(50)]
    backwards = names[::-1]

    first = signal.send(Academy, instance=academy, names=set(names))
    second = signal.send(Academy, names=set(backwards), instance=Academy.objects.get())

    assert first.id == second.id


def test_senders_and_signals_do_not_share_keys(bus: Bus, ran: list[Any]):
    """A message of another sender, or to other receivers, is not equal."""
    signal, other = hearing(ran, unique="slug"), hearing(ran, unique="slug")

    ids = {signal.send(sender, slug="a").id for sender in (None, Academy, "nightly")} | {other.send(None, slug="a").id}
    connect(signal, lambda **_: None, "new")
    ids.add(signal.send(None, slug="a").id)

    assert len(ids) == 5


def test_a_waiting_message_does_not_run_before_the_second_senders_commit(bus: Bus, ran: list[Any]):
    """The message is delivered after that commit, although a worker dropped its copy."""
    if connection.vendor != "postgresql":
        pytest.skip("one writer at a time: the worker waits")
    signal = hearing(ran, unique="slug")
    signal.send(None, slug="a", number=1)

    with transaction.atomic():
        signal.send(None, slug="a", number=2)
        assert elsewhere(bus.work) == [1]
        assert elsewhere(sweep) == [0]
        assert ran == []

    assert (sweep(), bus.work()) == (1, 1)
    assert ran == [("a", 1)]


def test_a_rollback_leaves_the_waiting_message(bus: Bus, ran: list[Any]):
    """The sender that rolls back leaves nothing of its own."""
    signal = hearing(ran, unique="slug")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        gone = signal.send(None, slug="a", number=1)
        raise ZeroDivisionError
    first = signal.send(None, slug="a", number=2)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert signal.send(None, slug="a", number=3).id == first.id != gone.id
        raise ZeroDivisionError

    assert only().state == "published"
    bus.work()
    assert ran == [("a", 2)]


def test_many_simultaneous_senders_leave_one_message(bus: Bus, ran: list[Any]):
    """All others get the id of the first one."""
    signal = hearing(ran, unique="slug")

    ids = together(6, lambda: signal.send(None, slug="a").id)

    assert len(ids) == 6
    assert len(set(ids)) == 1
    assert only().message_id == ids[0]


def test_a_sender_waits_for_the_commit_of_another(bus: Bus, ran: list[Any]):
    """A message that another transaction has sent and not committed decides."""
    if connection.vendor != "postgresql":
        pytest.skip("one writer at a time")
    signal = hearing(ran, unique="slug")
    second: list[object] = []
    thread = threading.Thread(target=lambda: second.extend(elsewhere(lambda: signal.send(None, slug="a").id)))

    with transaction.atomic():
        first = signal.send(None, slug="a")
        thread.start()
        thread.join(timeout=0.5)
        assert not second
    thread.join(timeout=30)

    assert second == [first.id]


def test_equal_messages_are_dropped_while_a_scheduled_one_waits(bus: Bus, ran: list[Any]):
    """A scheduled message waits for its time; a cancelled one does not wait."""
    signal = hearing(ran, unique="slug")
    first = signal.send_later(timedelta(hours=1), None, slug="a", number=1)

    assert signal.send(None, slug="a", number=2).id == first.id
    assert only().state == "pending"
    assert sweep() == 0
    assert signalbus.cancel(first.id)
    assert signal.send(None, slug="a", number=3).id != first.id


def test_many_payloads_share_messages(bus: Bus, ran: list[Any]):
    """send_many sends each key once, and returns the id of its message for each payload."""
    signal = hearing(ran, unique="slug")

    ids = signal.send_many(None, [{"slug": slug} for slug in "aba"])

    assert ids[0] == ids[2] != ids[1]
    assert bus.work() + sweep() + bus.work() >= 1
    assert sorted(ran) == [("a", 0), ("b", 0)]


def test_of_a_burst_only_the_last_is_sent(bus: Bus, ran: list[Any]):
    """Each message replaces the one before; after the pause the last one runs. The others are visible."""
    signal = hearing(ran, debounce=30, max_wait=300)

    for number in range(3):
        signal.send(None, number=number)
        pass_time(20)
        assert sweep() == 0
    pass_time(11)
    assert (sweep(), bus.work()) == (1, 1)

    assert ran == [(None, 2)]
    assert [state for _, state, _ in rows()] == ["discarded", "discarded", "done"]
    assert all("its burst" in row.error for row in Delivery.objects.filter(state="discarded"))


def test_max_wait_ends_a_burst(bus: Bus, ran: list[Any]):
    """The last message is sent, and the next burst begins."""
    signal = hearing(ran, debounce=30, max_wait=50)

    for number in range(4):
        signal.send(None, number=number)
        pass_time(20)
        sweep()
        bus.work()

    assert ran == [(None, 2)]
    assert Delivery.objects.filter(state="pending").count() == 1


def test_each_key_has_its_own_burst(bus: Bus, ran: list[Any]):
    """With unique=, messages of the same value are one burst."""
    signal = hearing(ran, unique="slug", debounce=30)

    signal.send_many(None, [{"slug": slug, "number": number} for number, slug in enumerate("abba")])
    pass_time(31)
    sweep()
    bus.work()

    assert sorted(ran) == [("a", 3), ("b", 2)]


def test_a_published_message_is_not_replaced(bus: Bus, ran: list[Any]):
    """A burst ends when its message is due: a message in a queue keeps its place there."""
    signal = hearing(ran, debounce=30)
    signal.send(None, number=1)
    pass_time(31)
    sweep()

    signal.send(None, number=2)
    bus.work()

    assert ran == [(None, 1)]
    assert [state for _, state, _ in rows()] == ["done", "pending"]


def test_a_rollback_replaces_no_message(bus: Bus, ran: list[Any]):
    """The message before the sender that rolled back is the burst's last again."""
    signal = hearing(ran, debounce=30)
    signal.send(None, number=1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        signal.send(None, number=2)
        raise ZeroDivisionError

    pass_time(31)
    sweep()
    bus.work()
    assert ran == [(None, 1)]


def test_bursts_from_many_senders_leave_one(bus: Bus, ran: list[Any]):
    """The last commit decides."""
    signal = hearing(ran, debounce=30)

    together(6, lambda: signal.send(None).id)

    assert sorted(state for _, state, _ in rows()) == ["discarded"] * 5 + ["pending"]


def test_nothing_is_published_while_a_burst_goes_on(bus: Bus, ran: list[Any]):
    """Only the sweeper publishes a debounced message."""
    hearing(ran, debounce=30).send(None)

    assert bus.client.llen(QUEUE) == 0


# For a plain send(), send_later(), and for unique= and debounce= with a new key and with one that waits.
STATEMENTS = {
    "postgresql": [1, 1, 4, 4, 1, 1],
    "sqlite": [4, 4, 6, 4, 7, 7],
    "mysql": [4, 4, 7, 7, 7, 11],
}


def test_a_send_makes_few_statements(bus: Bus, ran: list[Any]):
    """Each is a round trip, BEGIN and COMMIT included: PostgreSQL needs one for a burst."""
    plain, unique = hearing(ran), hearing(ran, unique="slug")
    debounced = hearing(ran, unique="slug", debounce=30)
    sends: list[Callable[[], object]] = [
        lambda: plain.send(None, slug="a"),
        lambda: plain.send_later(timedelta(hours=1), None, slug="a"),
        *[partial(unique.send, None, slug="a")] * 2,
        *[partial(debounced.send, None, slug="a")] * 2,
    ]
    for signal in (plain, unique, debounced):
        signal.send(None, slug="another")  # fills the caches

    found = []
    for send in sends:
        with CaptureQueriesContext(connection) as queries:
            send()
        found.append(len(queries))

    assert found == STATEMENTS[connection.vendor]


@pytest.mark.parametrize("database", ["postgres"])
def test_a_burst_with_server_side_binding(bus: Bus, ran: list[Any], monkeypatch: pytest.MonkeyPatch):
    """With psycopg's `server_side_binding` statements go one by one: then a transaction contains them."""
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "server_side_binding", True)
    connection.close()
    signal = hearing(ran, unique="slug", debounce=30)

    try:
        for number in range(3):
            signal.send(None, slug="a", number=number)
        pass_time(31)
        sweep()
        bus.work()
    finally:
        connection.close()

    assert ran == [("a", 2)]


def test_a_burst_in_a_transaction(bus: Bus, ran: list[Any]):
    """The messages of one transaction replace each other before its commit."""
    signal = hearing(ran, unique="slug", debounce=30, max_wait=40)

    with transaction.atomic():
        for number in range(3):
            signal.send(None, slug="a", number=number)
    pass_time(20)
    signal.send(None, slug="a", number=3)
    pass_time(21)

    assert (sweep(), bus.work(), ran) == (1, 1, [("a", 3)])  # 41 seconds after the first: max_wait ends the burst


def test_a_debounced_message_to_many_receivers(bus: Bus, ran: list[Any]):
    """Each has a delivery in its own queue; all of them are replaced together."""
    signal = hearing(ran, debounce=30)
    for number in range(15):
        connect(signal, lambda **_: None, f"other-{number}", queue="slow" if number % 2 else None)

    signal.send(None, number=1)
    signal.send(None, number=2)

    states = Counter(state for _, state, _ in rows())
    assert states == {"discarded": 16, "pending": 16}


def test_captured_shows_each_send(bus: Bus, ran: list[Any]):
    """In a test nothing waits, so no message stands for another."""
    signal = hearing(ran, unique=True)

    with captured() as sent:
        signal.send(None)
        signal.send(None)

    assert len(sent) == 2


def test_keys_that_nothing_waits_for_are_purged(bus: Bus, ran: list[Any]):
    """An old key is deleted unless a message waits by it."""
    signal = hearing(ran, unique="slug")
    signal.send(None, slug="done")
    bus.work()
    signal.send(None, slug="waits")
    order = signal.send(None, slug="waits").id
    assert order is not None
    Key.objects.create(id=order, position=7, used_at=timezone.now())

    assert ledger.purge_keys(3600) == 0
    assert ledger.purge_keys(-3600) == 2

    assert Key.objects.get().message == Delivery.objects.exclude(state="done").get().message_id

"""Rows and cascades: what a receiver gets when it runs, in its own transaction."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from signalbus import Retry, Signal, current, delivery_dead, delivery_failed
from signalbus.exceptions import CascadeError
from signalbus.models import Delivery
from tasks.admissions.models import Academy

from .bus import Bus, connect, fails, new_signal, only, rows

ONCE = Retry(max_attempts=1)


def test_bad_input_a_missing_row_is_skipped_or_fails(bus: Bus, signal: Signal, told):
    """Bad input, a reference to a missing row, is handled by on_missing; a skip is recorded with its reason."""
    ran = []
    connect(signal, lambda **kwargs: ran.append(1), "skips")
    connect(signal, lambda **kwargs: ran.append(2), "fails", on_missing="fail")
    academy = Academy.objects.create(name="A", slug="a")
    signal.send(None, instance=academy)
    pk = academy.pk
    academy.delete()
    bus.work()

    assert ran == []
    assert rows() == [("fails", "pending", 1), ("skips", "skipped", 1)]
    assert f"admissions.Academy {pk}" in Delivery.objects.get(receiver="skips").error
    assert [(kind, receiver) for kind, receiver, *_ in told] == [("failed", "fails")]


def test_a_skipped_delivery_is_warned_of(bus: Bus, signal: Signal, caplog):
    """The warning names the receiver, the row, and the option that makes it run."""
    connect(signal, lambda **kwargs: None, "skips")
    academy = Academy.objects.create(name="A", slug="a")
    signal.send(None, instance=academy)
    pk = academy.pk
    academy.delete()
    bus.work()

    (record,) = [record for record in caplog.records if record.name == "signalbus"]
    assert record.levelname == "WARNING"
    for part in (signal.name, "skips", f"admissions.Academy {pk}", 'on_missing="snapshot"'):
        assert part in record.getMessage()


def test_a_receivers_own_missing_row_is_its_failure(bus: Bus, signal: Signal):
    """DoesNotExist of its own query is an error like any other."""
    connect(signal, lambda **kwargs: Academy.objects.get(pk=-1), "own")
    signal.send(None)
    bus.work()

    assert rows() == [("own", "pending", 1)]


@pytest.mark.parametrize("count", [1, 50])
def test_one_query_for_each_model_and_receiver(bus: Bus, signal: Signal, count: int):
    """The number of rows does not matter; the query is in the receiver's transaction."""
    seen: list[list[Any]] = []

    def receiver(sender, academies, users, nested, **kwargs):
        assert connection.in_atomic_block
        academies[0].name = "changed by the first receiver"
        seen.append([*academies, *users, nested["deep"][0]])

    connect(signal, receiver, "first", atomic=True)
    connect(signal, receiver, "second", atomic=True)
    academies = [Academy.objects.create(name="A", slug=f"a{number}") for number in range(count)]
    users = [User.objects.create(username=f"u{number}") for number in range(count)]
    signal.send(None, academies=academies, users=users, nested={"deep": (academies[0],)})

    with CaptureQueriesContext(connection) as queries:
        bus.work()

    selects = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert len(selects) == 4
    first, second = seen
    assert first == second == [*academies, *users, academies[0]]
    assert not {id(row) for row in first} & {id(row) for row in second}
    assert rows() == []


def test_rows_are_fresh_and_loaded_by_the_base_manager(bus: Bus, signal: Signal, monkeypatch):
    """A default manager may hide rows; changes since send() are visible."""
    seen = []
    connect(signal, lambda instance, **kwargs: seen.append((instance.name, instance._state.db)), "seer")
    academy = Academy.objects.create(name="before", slug="a")
    signal.send(None, instance=academy)
    Academy.objects.update(name="after")

    monkeypatch.setitem(Academy._meta.__dict__, "default_manager", None)
    bus.work()

    assert seen == [("after", "default")]


class ReadFromReplica:
    """A router that reads from another database."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        """Name a database that does not exist, so that a read there fails."""
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        """Name the existing database."""
        return "default"


def test_rows_come_from_the_database_that_is_written_to(bus: Bus, signal: Signal):
    """A replica may not have them yet."""
    seen = []
    connect(signal, lambda instance, **kwargs: seen.append(instance.pk), "seer")
    academy = Academy.objects.create(name="A", slug="a")
    with override_settings(DATABASE_ROUTERS=[ReadFromReplica()]):
        signal.send(None, instance=academy)
        bus.work()

    assert seen == [academy.pk]


def test_current_describes_the_delivery_and_its_cascade(bus: Bus):
    """current() describes the delivery; the receiver's messages have its parent, root and path."""
    first, second = new_signal(), new_signal()
    seen: list[Any] = []

    def on_first(**kwargs):
        seen.append(current())
        second.send(None)

    connect(first, on_first, "on first")
    connect(second, lambda **kwargs: seen.append(current()), "on second")
    assert current() is None
    sent = first.send(None)
    bus.work()
    bus.work()

    parent, child = seen
    assert (parent.message_id, parent.root, parent.parent, parent.path) == (sent.id, sent.id, None, ())
    assert (parent.signal, parent.receiver, parent.attempt) == (first.name, "on first", 1)
    assert (child.root, child.parent, child.path) == (sent.id, sent.id, (first.name,))


def test_bad_input_a_cascade_too_deep_is_refused_with_its_path(bus: Bus, signal: Signal):
    """Bad input, a cascade too deep, is an error at send() that names the path of signals."""

    def receiver_that_sends_again(**kwargs):
        signal.send(None)

    connect(signal, receiver_that_sends_again, retry=ONCE)
    with override_settings(SIGNALBUS={"MAX_CASCADE": 4}):
        signal.send(None)
        turns = 0
        while bus.work():
            turns += 1

    assert turns == 4
    assert rows() == [("receiver_that_sends_again", "dead", 1)]
    assert only().error.startswith(CascadeError.__name__)
    assert " > ".join([signal.name] * 5) in only().error


def test_bad_input_a_cascade_through_announcements_is_refused(bus: Bus, signal: Signal, caplog):
    """The messages of receivers of delivery_dead count for the cascade of the dead delivery."""
    seen: list[tuple[str, ...]] = []

    def receiver_that_raises(**kwargs):
        delivery = current()
        assert delivery is not None
        seen.append(delivery.path)
        raise ValueError

    def send_again(sender, **kwargs):
        if sender == signal.name:
            signal.send(None)

    connect(signal, receiver_that_raises, retry=ONCE)
    delivery_dead.connect(send_again)
    try:
        with override_settings(SIGNALBUS={"MAX_CASCADE": 4}):
            signal.send(None)
            for _ in range(10):
                bus.work()
    finally:
        delivery_dead.disconnect(send_again)

    assert seen == [(signal.name,) * number for number in range(4)]
    assert "CascadeError" in caplog.text


def test_messages_of_receivers_of_delivery_failed_belong_to_the_cascade(bus: Bus, signal: Signal):
    """Such messages have the root, parent and path of the receiver's own messages."""
    told_of = new_signal()
    seen: list[Any] = []
    connect(told_of, lambda **kwargs: seen.append(current()), "told")
    fails(signal, ValueError("no luck"))

    def tell(sender, **kwargs):
        told_of.send(None)

    delivery_failed.connect(tell)
    try:
        sent = signal.send(None)
        bus.work()
        bus.work()
    finally:
        delivery_failed.disconnect(tell)

    (child,) = seen
    assert (child.root, child.parent, child.path) == (sent.id, sent.id, (signal.name,))
    assert current() is None

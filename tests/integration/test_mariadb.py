"""The differences of MariaDB for the ledger: comparing texts, interrupted drivers, time zones."""

from __future__ import annotations

from contextlib import closing, nullcontext, suppress
from datetime import timedelta
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signalbus import Retry, Signal
from signalbus.ledger import sweeps as ledger
from signalbus.models import Delivery, State, StoredMessage
from signalbus.receiving.sweeping.due_publication import sweep
from tasks.admissions.models import Academy

from .bus import (
    Bus,
    connect,
    elsewhere,
    fails,
    interrupt_as_a_transaction_begins,
    let_wait,
    new_signal,
    only,
    rows,
    soft_limit,
)

ONCE = Retry(max_attempts=1)


def sleep_in_a_query(**kwargs: Any) -> None:
    """Wait for a server that does not answer."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT SLEEP(30)")


def sessions_that_sleep() -> int:
    """Return how many sessions of the server run the receiver's query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(30)'")
        (found,) = cursor.fetchone()
        return int(found)


def let_end_long_ago() -> None:
    """Let two days pass since all deliveries ended."""
    Delivery.objects.update(ended_at=F("ended_at") - timedelta(days=2))


def purge_impatiently() -> int:
    """Purge on a connection that waits a second for a lock, and then fails."""
    with connection.cursor() as cursor:
        cursor.execute("SET innodb_lock_wait_timeout = 1")
    return ledger.purge(86400)


def test_names_that_differ_only_in_case_are_different(bus: Bus, signal: Signal):
    """MariaDB compares «É» equal to «e»; each delivery keeps its own name, and neither stands for both."""
    for uid in ("étage", "Etage", "etage "):
        fails(signal, ValueError(uid), uid, retry=ONCE)
    signal.send(None)
    bus.work()

    assert rows() == sorted((uid, "dead", 1) for uid in ("étage", "Etage", "etage "))


def test_any_characters_of_an_error_are_recorded(bus: Bus, signal: Signal):
    """PostgreSQL cannot store some of them, and some take four bytes."""
    fails(signal, ValueError("nul \0, and 🎓"), retry=ONCE)
    signal.send(None)
    bus.work()

    assert "🎓" in only().error


def test_a_large_message_is_recorded(bus: Bus, signal: Signal):
    """Near the limit of 256 KiB it fits, where MySQL's plain TEXT would end at 64."""
    large = "e" * 200_000
    fails(signal, ValueError("too heavy"), retry=ONCE)
    signal.send(None, text=large)
    bus.work()

    assert large in only().message.text


def test_the_time_zone_of_the_server_changes_no_time(bus: Bus, signal: Signal):
    """The server of these tests is five hours ahead of UTC; times in the ledger are in UTC."""
    fails(signal, ValueError("late"), retry=ONCE)
    signal.send(None)
    bus.work()

    row, now = only(), timezone.now()
    times = (row.created_at, row.due_at, row.failed_at, row.ended_at, row.message.created_at)
    assert [moment is not None and abs(moment - now) < timedelta(minutes=30) for moment in times] == [True] * 5


def test_an_aware_time_is_not_due_early_on_a_server_ahead_of_utc(bus: Bus, signal: Signal):
    """`send_later()` compares the sender's time with the database's in UTC."""
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send_later(timezone.now() + timedelta(hours=1), None)

    assert (sweep(), rows()) == (0, [("receiver", "pending", 0)])
    let_wait(3610)
    assert sweep() == 1


def test_a_time_zone_of_the_session_changes_no_time(bus: Bus, signal: Signal):
    """A session may have its own, set by `init_command`: here one behind UTC."""
    connect(signal, lambda **kwargs: None, "receiver")
    with connection.cursor() as cursor:
        cursor.execute("SET time_zone = '-08:00'")
    signal.send_later(timezone.now() - timedelta(minutes=1), None)

    assert sweep() == 1


@pytest.mark.parametrize("held", [Delivery, StoredMessage])
def test_a_purge_does_not_wait_for_locked_rows(bus: Bus, held: type[Delivery | StoredMessage]):
    """A purge skips a running delivery, and the rows of a sender that has not committed."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send_many(None, [{}, {}, {}])
    bus.work()
    let_end_long_ago()
    signal.send(None)

    with transaction.atomic():
        newest = Delivery.objects.get(state=State.PUBLISHED)
        held.objects.select_for_update().get(pk=newest.pk if held is Delivery else newest.message_id)
        assert elsewhere(purge_impatiently) == [3]

    assert Delivery.objects.count() == StoredMessage.objects.count() == 1


@pytest.mark.parametrize("atomic", [True, False])
def test_a_timeout_during_a_query_is_recorded_and_the_next_receiver_runs(bus: Bus, signal: Signal, atomic: bool):
    """The failure is written down, and the next receiver runs in its first attempt. PyMySQL closes what is cut off, and
    says for a `TimeoutError` that the connection was lost; the reason stands in its text.
    """
    ran = []
    connect(signal, sleep_in_a_query, "interrupted", timeout=0.2, atomic=atomic)
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "after", atomic=atomic)
    signal.send(None)
    bus.work()

    assert rows() == [("interrupted", "pending", 1)]
    assert "the receiver's timeout of 0.2 s is over" in only().error
    assert ran == [0]


@pytest.mark.parametrize("native", [True, False])
def test_a_purge_deletes_a_batch_by_one_statement_for_each_table(bus: Bus, monkeypatch, native: bool):
    """The tables are those of failed attempts, deliveries and messages; where ids are texts, as in MySQL, the statement
    is executed for each row.
    """
    monkeypatch.setattr(connection.features, "has_native_uuid_field", native)
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send_many(None, [{}] * 20)
    bus.work()
    let_end_long_ago()
    signal.send(None)

    with CaptureQueriesContext(connection) as queries:
        assert ledger.purge(86400) == 20

    deletions = [query["sql"] for query in queries if "DELETE" in query["sql"]]
    assert [sql.startswith("DELETE") for sql in deletions] == [native] * 3
    assert Delivery.objects.count() == StoredMessage.objects.count() == 1


@pytest.mark.parametrize("timeout", [0.2, None])
def test_an_interrupted_query_leaves_no_lock_on_its_delivery(bus: Bus, timeout: float | None):
    """The outcome is recorded at once, after a `timeout` and after Celery's soft time limit: the server, which would
    keep the row locked until it has finished the query, is told to end the session.
    """
    signal = new_signal(durable=True)
    connect(signal, sleep_in_a_query, "interrupted", timeout=timeout, retry=ONCE)
    signal.send(None)
    with nullcontext() if timeout else soft_limit(0.2):
        bus.work()

    assert rows() == [("interrupted", "dead", 1)]
    assert sessions_that_sleep() == 0


def test_an_interrupted_wait_for_a_lock_leaves_no_lock_on_its_delivery(bus: Bus):
    """The receiver waits for a row that another session has locked; its own delivery's row becomes free."""
    Academy.objects.create(name="locked", slug="locked")
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: Academy.objects.update(name="mine"), "waits", timeout=0.2, retry=ONCE)
    signal.send(None)

    with closing(connection.copy()) as other:
        other.set_autocommit(False)
        other.cursor().execute(f"SELECT id FROM {Academy._meta.db_table} FOR UPDATE")
        bus.work()

    assert rows() == [("waits", "dead", 1)]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_limit_caught_during_a_query_does_not_affect_the_next_receiver(bus: Bus, atomic: bool):
    """The receiver has no connection: an atomic one has failed; the next one has a new connection."""
    ran = []

    def sleep_and_catch(**kwargs: Any) -> None:
        with suppress(SoftTimeLimitExceeded):
            sleep_in_a_query()

    signal = new_signal(durable=True)
    connect(signal, sleep_and_catch, "catches", atomic=atomic, retry=ONCE)
    connect(signal, lambda **kwargs: ran.append(Academy.objects.count()), "next")
    signal.send(None)
    with soft_limit(0.2):
        bus.work()

    assert rows() == [("catches", "dead" if atomic else "done", 1), ("next", "done", 1)]
    assert ran == [0]


def test_a_limit_that_expires_as_a_transaction_begins_leaves_none_open(bus: Bus, signal: Signal, monkeypatch):
    """Django does not know it yet: later writes would be rolled back."""
    interrupt_as_a_transaction_begins(bus, signal, monkeypatch)


def test_a_connection_that_the_server_closed_during_a_run_is_a_failed_attempt(bus: Bus, signal: Signal):
    """The writes of an `atomic` receiver are gone with it; the next attempt writes once."""

    def receiver_whose_connection_dies(**kwargs: Any) -> None:
        Academy.objects.create(name="half", slug=f"half-{len(turns)}")
        turns.append(1)
        if len(turns) == 1:
            with connection.cursor() as cursor:
                cursor.execute("KILL CONNECTION_ID()")

    turns: list[int] = []
    connect(signal, receiver_whose_connection_dies, "dies")
    signal.send(None)
    bus.work()
    assert rows() == [("dies", "pending", 1)]

    bus.come_again()

    assert list(Academy.objects.values_list("slug", flat=True)) == ["half-1"]
    assert not Delivery.objects.exclude(state=State.DONE).exists()

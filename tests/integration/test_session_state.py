"""A receiver's changes to its database session end with its run."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.db.backends.signals import connection_created
from psycopg.sql import SQL, Identifier

from signalbus import delivery_failed
from signalbus.compat.django_internals import close_pools
from signalbus.models import Delivery
from signalbus.receiving.process import session_state
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes, runtimes
from signalbus.receiving.running import attempt, group_commit
from tasks.admissions.models import Academy
from tests.servers import wait_until

from .bus import Bus, connect, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus import Signal

# What is done, and a query for what it leaves.
CHANGES = {
    "postgresql": {
        "setting": ("SET app.tenant = 'a'", "SELECT coalesce(current_setting('app.tenant', true), '')"),
        "set_config": ("SELECT set_config('app.tenant', 'a', false)", "SELECT current_setting('app.tenant', true)"),
        "search_path": ("SET search_path TO alpha, public", "SHOW search_path"),
        "timeout": ("SET statement_timeout = '7s'", "SHOW statement_timeout"),
        "lock": ("SELECT pg_advisory_lock(42)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        "temporary table": ("CREATE TEMP TABLE t (a int)", "SELECT to_regclass('pg_temp.t')"),
        "listen": ("LISTEN news", "SELECT count(*) FROM pg_listening_channels()"),
        "prepare": ("PREPARE p AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements WHERE from_sql"),
    },
    "sqlite": {
        "pragma": ("PRAGMA cache_size = 77", "PRAGMA cache_size"),
        "attach": ("ATTACH DATABASE ':memory:' AS other", "SELECT count(*) FROM pragma_database_list"),
        "temporary table": ("CREATE TEMP TABLE t (a int)", "SELECT count(*) FROM sqlite_temp_master"),
    },
    "mysql": {
        "variable": ("SET @a = 1", "SELECT @a"),
        "setting": ("SET SESSION lock_wait_timeout = 77", "SELECT @@lock_wait_timeout"),
        "lock": ("SELECT GET_LOCK('a', 1)", "SELECT IS_USED_LOCK('a')"),
        # In place of a table that has rows: MariaDB lists no temporary ones.
        "temporary table": (
            "CREATE TEMPORARY TABLE django_migrations (a int)",
            "SELECT count(*) > 0 FROM django_migrations",
        ),
    },
}
WAYS: dict[str, dict[str, Any]] = {
    "atomic": {},
    "durable": {"durable": True},
    "without a transaction": {"atomic": False},
    "claimed first": {"durable": True, "atomic": False},
}


pytestmark = pytest.mark.usefixtures("watched_sessions")


def query(sql: Any) -> Any:
    """Return the first value of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def in_a_fresh_session(sql: str) -> Any:
    """Return the result of a statement in an unchanged session."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(query(sql))
        finally:
            connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(30)
    return found[0]


def sees_a_fresh_session(shown: str) -> bool:
    """Return whether a statement has the result that it has in an unchanged session."""
    return bool(query(shown) == in_a_fresh_session(shown))


def deliver(bus: Bus, receiver: Callable[..., None], *, durable: bool = False, **options: Any) -> None:
    """Send one message to a receiver, and deliver it."""
    signal = new_signal(durable=durable)
    connect(signal, receiver, "changing", **options)
    signal.send(None)
    bus.work()


@pytest.mark.parametrize("way", WAYS)
def test_a_changed_session_ends_with_its_run(bus: Bus, way: str):
    """The next delivery sees a fresh session, however this one ended; nothing stays locked."""
    for sql, shown in CHANGES[connection.vendor].values():
        deliver(bus, lambda sql=sql, **kwargs: query(sql), **WAYS[way])

        # PostgreSQL releases the locks of a closed connection a moment after it was closed.
        wait_until(partial(sees_a_fresh_session, shown), what=f"the end of {sql}")
    assert {state for _, state, _ in rows()} <= {"done"}


def test_a_run_that_fails_ends_its_session_too(bus: Bus):
    """The failure is recorded in a fresh session, whatever the changed one can see."""
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL has schemas to hide the ledger's tables in")

    def receiver_that_hides_the_tables_and_fails(**kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET search_path TO nowhere")
        raise ValueError("hidden")

    for options in WAYS.values():
        deliver(bus, receiver_that_hides_the_tables_and_fails, **options)

    assert query("SHOW search_path") == '"$user", public'
    assert [(state, attempts) for _, state, attempts in rows()] == [("pending", 1)] * len(WAYS)


@pytest.mark.parametrize("database", ["postgres"])
def test_a_long_run_that_changes_the_search_path_is_done(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """The run time is not recorded in a session that may not see the ledger's tables."""
    monkeypatch.setattr(attempt, "WORTH_TELLING", 0.0)

    deliver(bus, lambda **kwargs: query("SET search_path TO nowhere"), durable=True)
    deliver(bus, lambda **kwargs: None, durable=True)

    assert [(state, attempts) for _, state, attempts in rows()] == [("done", 1)] * 2
    assert [row.runtime_ms is None for row in Delivery.objects.order_by("created_at")] == [True, False]


@pytest.mark.parametrize("database", ["postgres"])
def test_a_changed_session_does_not_go_back_into_a_pool(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """psycopg's pool would hand the connection to the next run unchanged."""
    connection.close()
    options = {**connection.settings_dict["OPTIONS"], "pool": {"min_size": 1, "max_size": 1}}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    seen = []

    def receiver(**kwargs: Any) -> None:
        seen.append(query("SELECT coalesce(current_setting('app.tenant', true), '')"))
        query("SET app.tenant = 'a'")

    try:
        for way in WAYS.values():
            deliver(bus, receiver, **way)
        assert {state for _, state, _ in rows()} == {"done"}
    finally:
        connection.close()
        close_pools()

    assert seen == [""] * len(WAYS)


def test_a_hosts_session_setup_is_no_change(bus: Bus):
    """The host's setup runs for each new connection, which is kept like any other."""
    sql, _ = next(iter(CHANGES[connection.vendor].values()))
    seen: list[Any] = []

    def set_up(connection: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql)

    connection_created.disconnect(dispatch_uid="signalbus.session_state")
    connection_created.connect(set_up)  # in a worker the host's apps come first
    session_state.listen()
    try:
        for _ in range(2):
            connection.close()
            for _ in range(2):
                deliver(bus, lambda **kwargs: seen.append(connection.connection), durable=True)
    finally:
        connection_created.disconnect(set_up)
        connection.close()

    assert seen[0] is seen[1]
    assert seen[1] is not seen[2]
    assert seen[2] is seen[3]


def test_a_callback_after_the_commit_ends_its_session_too(bus: Bus):
    """A receiver's on_commit callback is a part of its run."""
    sql, shown = next(iter(CHANGES[connection.vendor].values()))

    deliver(bus, lambda **kwargs: transaction.on_commit(lambda: query(sql)), durable=True)

    assert query(shown) == in_a_fresh_session(shown)


def test_a_listener_of_failures_ends_its_session_too(bus: Bus):
    """The next delivery does not see the settings of a receiver of delivery_failed."""
    sql, shown = next(iter(CHANGES[connection.vendor].values()))

    def listener_that_sets(**kwargs: Any) -> None:
        query(sql)

    def receiver_that_raises(**kwargs: Any) -> None:
        raise ValueError("told")

    delivery_failed.connect(listener_that_sets)
    try:
        deliver(bus, receiver_that_raises, durable=True)
    finally:
        delivery_failed.disconnect(listener_that_sets)

    assert query(shown) == in_a_fresh_session(shown)


def test_a_receiver_that_changes_nothing_keeps_the_connection(bus: Bus):
    """A plain query, or a setting that ends with the transaction, does not close it."""
    before = connection.connection

    def receiver(**kwargs: Any) -> None:
        Academy.objects.create(name="A", slug="a")
        if connection.vendor == "postgresql":
            query("SELECT set_config('app.tenant', 'a', true)")
            query("SELECT pg_advisory_xact_lock(1)")

    deliver(bus, receiver, durable=True)

    assert connection.connection is before
    assert [state for _, state, _ in rows()] == ["done"]


@pytest.mark.parametrize("database", ["postgres"])
def test_a_statement_of_the_drivers_sql_module_is_noticed(bus: Bus):
    """Such a statement is an object, not a text, and is read like one."""
    statement = SQL("SET {} = 'a'").format(Identifier("app", "tenant"))

    deliver(bus, lambda **kwargs: query(statement))

    assert query("SELECT coalesce(current_setting('app.tenant', true), '')") == ""


@pytest.fixture
def group_commits(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let deliveries run in group commits, however slow the machine is."""
    if database == "mariadb":
        pytest.skip("nothing shares a commit there")
    monkeypatch.setattr(group_commit, "BRIEF", 5.0)
    monkeypatch.setattr(runtimes, "_alone_until", {})
    monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)


def test_callbacks_of_a_group_commit_end_their_sessions_too(bus: Bus, group_commits: None):
    """The callback of one delivery sets nothing for those of the others."""
    sql, shown = next(iter(CHANGES[connection.vendor].values()))
    fresh = in_a_fresh_session(shown)
    seen: list[Any] = []

    def callback() -> None:
        seen.append((query(shown), connection.in_atomic_block))
        query(sql)
        raise ValueError("after the commit")

    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: transaction.on_commit(callback), "calling")
    signal.send_many(None, [{}] * 4)
    bus.work()

    assert seen == [(fresh, False)] * 4
    assert query(shown) == fresh
    assert {state for _, state, _ in rows()} == {"done"}


def test_a_delivery_that_changes_the_session_runs_alone(bus: Bus, group_commits: None):
    """The delivery runs again outside of its group, and the others do not see its settings."""
    sql, shown = next(iter(CHANGES[connection.vendor].values()))
    seen: list[Any] = []
    signal: Signal = new_signal(durable=True)

    def receiver(number: int, **kwargs: Any) -> None:
        seen.append(query(shown))
        if number == 1:
            query(sql)

    connect(signal, receiver)
    fresh = in_a_fresh_session(shown)
    signal.send_many(None, [{"number": number} for number in range(4)])
    bus.work()

    assert {state for _, state, _ in rows()} == {"done"}
    assert set(seen) == {fresh}
    assert query(shown) == fresh

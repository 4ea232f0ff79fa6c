"""Ending one receiver's session does not affect other databases, other deliveries, or the threads of an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.db.backends.sqlite3.base import DatabaseWrapper

from signalbus.receiving.invoking import invocation
from signalbus.receiving.process import database_connections, session_state
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes, runtimes
from signalbus.receiving.running import group_commit
from tasks.admissions.models import Academy

from .bus import Bus, connect, elsewhere, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Tenants(DatabaseWrapper):
    """A connection with the methods of a tenant library such as django-tenants."""

    schema_name = "public"

    def set_schema_to_public(self) -> None:
        """Select the shared schema."""
        self.schema_name = "public"

    def set_schema(self, schema: str) -> None:
        """Select a tenant's schema."""
        self.schema_name = schema


@pytest.fixture
def tenants(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Use a tenant library's connection for the ledger, beside a second, plain database."""
    tenant: Any = connections["default"]
    monkeypatch.setattr(tenant, "__class__", Tenants)
    monkeypatch.setattr(invocation, "has_schemas", lambda: True)  # which asks the class of the settings' backend
    plain = {**connections.settings["default"], "NAME": str(tmp_path / "plain.sqlite3")}
    monkeypatch.setitem(connections.settings, "plain", plain)
    yield tenant
    connections["plain"].close()
    del connections["plain"]


@pytest.fixture
def in_a_worker(watched_sessions: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """End sessions as in a worker: no transaction is open around its task."""
    monkeypatch.setattr(database_connections, "_is_worker", lambda: True)


def run_sql(sql: str) -> Any:
    """Run a statement, and return its first value."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_plain_database_beside_a_tenant_librarys_fails_no_receiver(bus: Bus, tenants: Any):
    """A receiver that opens it is done, and so are the next ones."""

    def receiver_of_both(**kwargs: Any) -> None:
        with connections["plain"].cursor() as cursor:
            cursor.execute("SELECT 1")

    signal = new_signal(durable=True)
    connect(signal, receiver_of_both)
    for _ in range(2):
        signal.send(None)
        bus.work()

    assert [state for _, state, _ in rows()] == ["done"] * 2


@pytest.mark.parametrize("database", ["sqlite"])
def test_the_schema_that_a_receiver_sets_is_set_back(bus: Bus, tenants: Any):
    """Afterwards the former or the shared schema is selected."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: tenants.set_schema("alpha"), "setting")
    for before in ("public", "beta"):
        tenants.set_schema(before)
        signal.send(None)
        bus.work()
        assert tenants.schema_name == before


def test_a_database_that_cannot_be_loaded_concerns_no_receiver(bus: Bus, ran: list[Any], monkeypatch):
    """Only databases in use are asked: the backend of another one may not be installed on this machine."""
    session_state.has_schemas.cache_clear()
    monkeypatch.setitem(connections.settings, "elsewhere", {**connections.settings["default"], "ENGINE": "no.such"})
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: ran.append("ran"), "receiver")
    try:
        signal.send(None)
        bus.work()
    finally:
        session_state.has_schemas.cache_clear()

    assert ran == ["ran"]
    assert [state for _, state, _ in rows()] == ["done"]


@pytest.mark.parametrize("database", ["postgres"])
def test_connections_of_a_loops_threads_end_with_the_run(bus: Bus):
    """The next run does not see the session settings of such a thread."""
    seen: list[Any] = []

    def set_and_look(number: int) -> None:
        seen.append(run_sql("SELECT coalesce(current_setting('app.tenant', true), '')"))
        run_sql(f"SET app.tenant = 't{number}'")

    async def receiver_with_a_thread(number: int, **kwargs: Any) -> None:
        await asyncio.to_thread(set_and_look, number)

    signal = new_signal(durable=True)
    connect(signal, receiver_with_a_thread)
    for number in range(3):
        signal.send(None, number=number)
        bus.work()

    assert seen == ["", "", ""]


@pytest.mark.parametrize("database", ["postgres"])
def test_a_server_that_ends_connections_fails_no_later_run_of_a_loops_threads(bus: Bus):
    """The next run opens a connection of its own."""
    counts: list[int] = []

    async def receiver_with_a_thread(**kwargs: Any) -> None:
        counts.append(await sync_to_async(Academy.objects.count, thread_sensitive=False)())

    others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    mine = f"{others} AND datname = current_database()"
    signal = new_signal(durable=True)
    connect(signal, receiver_with_a_thread)
    signal.send(None)
    bus.work()
    elsewhere(lambda: run_sql(mine))
    connections.close_all()
    for _ in range(2):
        signal.send(None)
        bus.work()

    assert counts == [0, 0, 0]
    assert {state for _, state, _ in rows()} == {"done"}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_session_changed_before_a_group_commit_fails_no_delivery(bus: Bus, in_a_worker: None, monkeypatch):
    """A host's handler or task has changed it: the connection is closed before the deliveries begin."""
    monkeypatch.setattr(group_commit, "BRIEF", 5.0)
    monkeypatch.setattr(runtimes, "_alone_until", {})
    monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: Academy.objects.exists(), "innocent")
    signal.send_many(None, [{}] * 4)

    run_sql("SET statement_timeout = '70s'" if connection.vendor == "postgresql" else "PRAGMA cache_size = 77")
    bus.work()

    assert [(state, attempts) for _, state, attempts in rows()] == [("done", 1)] * 4

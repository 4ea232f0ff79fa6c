"""The keepalive settings that workers ask PostgreSQL for, so that it notices a lost machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connection, connections
from django.db.backends.signals import connection_created

from signalbus.receiving.process import keepalive

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def in_a_worker() -> Iterator[None]:
    """Do what a worker does at its start."""
    keepalive.listen()
    yield
    connection_created.disconnect(dispatch_uid="signalbus.sessions")


def shown(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s)", [name])
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize("database", ["postgres"])
def test_a_workers_connections_have_keepalive_settings(database_url: str, caplog):
    """This holds for each connection, also on a unix socket, on which keepalives have no effect."""
    connection.close()

    assert shown("client_connection_check_interval") == "5s"
    connection.close()
    assert shown("client_connection_check_interval") == "5s"
    assert caplog.records == []


@pytest.mark.parametrize("database", ["postgres"])
def test_existing_settings_take_precedence(database_url: str, monkeypatch):
    """The settings may be those of a role, a database, or a connection."""
    chosen = {**connection.settings_dict["OPTIONS"], "options": "-c client_connection_check_interval=7s"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", chosen)
    connection.close()

    assert shown("client_connection_check_interval") == "7s"
    connection.close()


@pytest.mark.parametrize("database", ["postgres"])
def test_without_autocommit_the_settings_last(database_url: str, monkeypatch):
    """The first rollback does not undo them."""
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    connection.close()
    connection.ensure_connection()
    connection.rollback()

    assert shown("client_connection_check_interval") == "5s"
    connection.close()


@pytest.mark.parametrize("database", ["postgres"])
def test_a_server_that_refuses_the_settings_is_used_without_them(database_url: str, monkeypatch, caplog):
    """The refusal is logged, and the connection works."""
    monkeypatch.setattr(keepalive, "STATEMENT", "SELECT set_config('no.such', %s::text[]::text, %s)")
    connection.close()

    assert shown("client_connection_check_interval") == "0"
    assert "could not set keepalives" in caplog.text


def test_other_databases_get_no_settings(database_url: str):
    """SQLite has no sessions."""
    connections["default"].close()
    connections["default"].ensure_connection()

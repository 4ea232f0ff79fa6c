"""What workers ask PostgreSQL to do about a machine that vanishes."""

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
    """Do what a worker does as it starts."""
    keepalive.listen()
    yield
    connection_created.disconnect(dispatch_uid="signalbus.sessions")


def shown(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s)", [name])
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize("database", ["postgres"])
def test_a_workers_connections_ask_whether_the_client_is_there(database_url: str, caplog):
    """Each that it opens, whatever it is opened for; on a unix socket, of which keepalives mean nothing, as well."""
    connection.close()

    assert shown("client_connection_check_interval") == "5s"
    connection.close()
    assert shown("client_connection_check_interval") == "5s"
    assert caplog.records == []


@pytest.mark.parametrize("database", ["postgres"])
def test_what_somebody_has_chosen_stays(database_url: str, monkeypatch):
    """A role's, a database's, or a connection's own setting wins."""
    chosen = {**connection.settings_dict["OPTIONS"], "options": "-c client_connection_check_interval=7s"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", chosen)
    connection.close()

    assert shown("client_connection_check_interval") == "7s"
    connection.close()


@pytest.mark.parametrize("database", ["postgres"])
def test_without_autocommit_the_settings_last(database_url: str, monkeypatch):
    """The first rollback does not take them back."""
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    connection.close()
    connection.ensure_connection()
    connection.rollback()

    assert shown("client_connection_check_interval") == "5s"
    connection.close()


@pytest.mark.parametrize("database", ["postgres"])
def test_a_server_that_refuses_breaks_nothing(database_url: str, monkeypatch, caplog):
    """It is told of, and the connection serves."""
    monkeypatch.setattr(keepalive, "STATEMENT", "SELECT set_config('no.such', %s::text[]::text, %s)")
    connection.close()

    assert shown("client_connection_check_interval") == "0"
    assert "could not set keepalives" in caplog.text


def test_other_databases_are_left_alone(database_url: str):
    """SQLite has no sessions."""
    connections["default"].close()
    connections["default"].ensure_connection()

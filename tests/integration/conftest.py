"""Fixtures of the integration tests: real servers, and this process's bus between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.db.backends.signals import connection_created

from signalbus import Signal, delivery_dead, delivery_failed
from signalbus.events import listen, unlisten
from signalbus.receiving.process import session_state
from signalbus.sending import outbox
from tests.fixtures import (
    broker_url,
    database_url,
    mariadb,
    migrated_postgres,
    migrated_sqlite,
    postgres,
    postgres_server,
    registry_as_it_was,
    start_worker,
    valkey,
)
from tests.other_servers import DATABASE, DATABASES

from .bus import Bus, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from signalbus.embedded import EmbeddedValkey
    from signalbus.events import Kind

# Each is for one database alone, and runs where the run is for that one.
collect_ignore = [f"test_{name}.py" for name in DATABASES if name != DATABASE]

__all__ = [
    "broker_url",
    "database_url",
    "mariadb",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres",
    "postgres_server",
    "registry_as_it_was",
    "start_worker",
    "valkey",
]


@pytest.fixture(params=[DATABASE] if DATABASE else ["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """Run each test that uses a database on both databases, or on the one of the run."""
    return str(request.param)


@pytest.fixture
def bus(valkey: EmbeddedValkey, database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Bus:
    """The broker, with a database behind it."""
    monkeypatch.setattr(outbox, "outage", outbox.Outage())  # another test's broker was away
    return Bus(valkey.redis_url)


@pytest.fixture
def signal() -> Signal:
    """A signal without receivers."""
    return new_signal()


@pytest.fixture
def ran() -> list[Any]:
    """The calls of a test's receiver."""
    return []


@pytest.fixture
def told() -> Iterator[list[tuple[str, str, int, str]]]:
    """The signals delivery_failed and delivery_dead that were sent: (which, receiver, attempt, error)."""
    heard: list[tuple[str, str, int, str]] = []

    def on_failed(sender, delivery, error, **kwargs):
        heard.append(("failed", delivery.receiver, delivery.attempt, repr(error)))

    def on_dead(sender, delivery, error, **kwargs):
        heard.append(("dead", delivery.receiver, delivery.attempt, repr(error)))

    delivery_failed.connect(on_failed)
    delivery_dead.connect(on_dead)
    yield heard
    delivery_failed.disconnect(on_failed)
    delivery_dead.disconnect(on_dead)


@pytest.fixture
def listening() -> Iterator[Callable[..., Any]]:
    """Return `listen`, whose listeners are removed at the end of the test."""
    registered: list[Any] = []

    def listen_for_now(*kinds: Kind) -> Callable[[Any], Any]:
        def register(listener: Any) -> Any:
            registered.append(listener)
            return listen(*kinds)(listener)

        return register

    yield listen_for_now
    for listener in registered:
        unlisten(listener)


@pytest.fixture
def watched_sessions(database_url: str) -> Iterator[None]:
    """Watch the statements of connections, as a worker does from its start."""
    connection.close()
    session_state.listen()
    connection.ensure_connection()
    yield
    connection_created.disconnect(dispatch_uid="signalbus.session_state")
    connection.execute_wrappers.remove(session_state._look)
    connection.close()

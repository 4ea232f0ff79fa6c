"""Fixtures of the tests with real servers; each kind of tests imports its own into its conftest.

They do without pytest-django's database: a worker sees only what is committed. So a test that asks for
``database_url`` has no ``django_db`` mark.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
import redis

from signalbus.bridging.bridge import Bridge
from signalbus.embedded import EmbeddedValkey
from signalbus.registration.registry import registry
from tests.other_servers import BROKER, DATABASE
from tests.servers import Postgres, Worker, broker, default_database, migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_django.plugin import DjangoDbBlocker

    from tests.other_servers.mariadb import MariaDB
    from tests.other_servers.rabbitmq import RabbitMQ
    from tests.other_servers.sentinel import Sentinel


@pytest.fixture(autouse=True)
def registry_as_it_was() -> Iterator[None]:
    """Forget the signals that a test made in a function: Django keeps them as long as their receivers live."""
    before = set(registry._signals)
    yield
    for number, signal in list(registry._signals.items()):
        is_bridge = isinstance(signal, Bridge)  # which is found again by what it carries
        is_named = signal._at_top or signal._attribute is not None
        if number not in before and not is_bridge and not (is_named and signal.module in sys.modules):
            del registry._signals[number]
    registry._by_name.clear()
    registry.renamed()


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    """A private broker for all tests; ``broker_url`` empties it."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A private PostgreSQL."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres(postgres_server: Postgres) -> str:
    """The DATABASE_URL of an empty database."""
    return postgres_server.create()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: Postgres, django_db_blocker: DjangoDbBlocker) -> str:
    """The name of a PostgreSQL database with all tables, as a template."""
    url = postgres_server.create()
    with django_db_blocker.unblock():
        migrate(url)
    return Postgres.name(url)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Path:
    """An SQLite file with all tables, as a template."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.sqlite3"
    with django_db_blocker.unblock():
        migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def mariadb(django_db_blocker: DjangoDbBlocker) -> Iterator[MariaDB]:
    """A private MariaDB with all tables, for all tests; ``database_url`` empties it."""
    from tests.other_servers.mariadb import MariaDB

    with MariaDB() as server:
        with django_db_blocker.unblock():
            migrate(server.url)
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A private RabbitMQ."""
    from tests.other_servers.rabbitmq import RabbitMQ

    with RabbitMQ() as server:
        yield server


@pytest.fixture(scope="session")
def sentinel() -> Iterator[Sentinel]:
    """A private Valkey behind a Sentinel."""
    from tests.other_servers.sentinel import Sentinel

    with Sentinel() as server:
        yield server


@pytest.fixture
def database() -> str:
    """The kind of ``database_url``: the run's, or "sqlite" if a test is parametrized so."""
    return DATABASE or "postgres"


@pytest.fixture
def database_url(
    database: str, request: pytest.FixtureRequest, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """A database of the test's own, which is this process's default one; workers see its commits."""
    if DATABASE not in (None, database):
        pytest.skip(f"It is about {database}, and this run about {DATABASE}.")
    server: Postgres | None = None
    if database == "postgres":
        server = request.getfixturevalue("postgres_server")
        url = server.create(template=request.getfixturevalue("migrated_postgres"))
    elif database == "mariadb":
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        mariadb.empty()
        url = mariadb.url
    else:
        path = tmp_path / "db.sqlite3"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), path)
        url = f"sqlite:///{path}"
    with django_db_blocker.unblock(), default_database(url):
        yield url
    if server is not None:
        server.drop(url)


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The broker, empty and running; this process's bus publishes to it."""
    # By name: who asks for Valkey as well needs that one, and is left out where the broker is another.
    server = request.getfixturevalue(BROKER or "valkey")
    if server.pid is None:
        server.start()
    if isinstance(server, EmbeddedValkey):
        with redis.Redis.from_url(server.redis_url) as client:
            client.flushall()
    else:
        server.empty()
    with broker(server.url):
        yield server.url


@pytest.fixture
def start_worker(database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start real workers on the test's database and broker.

    It takes what ``Worker`` takes, and returns a worker that is ready, or will be if told not to wait; all are ended
    with the test, and what they wrote is shown if it fails.
    """
    started: list[Worker] = []

    def start(
        *options: str, environment: dict[str, str | None] | None = None, wait: bool = True, **arguments: Any
    ) -> Worker:
        surroundings = {
            "CELERY_BROKER_URL": broker_url,
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            **(environment or {}),
        }
        worker = Worker(tmp_path, *options, environment=surroundings, **arguments)
        started.append(worker)
        worker.start()
        if wait:
            worker.wait_until_ready()
        return worker

    yield start
    for worker in started:
        worker.stop()
        print(f"--- {worker.name}\n{worker.log}")  # noqa: T201 - pytest shows it with a failure

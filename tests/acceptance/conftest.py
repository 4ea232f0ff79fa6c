"""The processes of each test: a broker, a result backend, a worker of this checkout, and their database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import _state
from pytest_celery import CeleryTestBroker

from tests.acceptance.process_nodes import OtherBrokerNode, ValkeyNode, WorkerNode
from tests.fixtures import (
    broker_url,
    database,
    database_url,
    mariadb,
    migrated_postgres,
    migrated_sqlite,
    postgres_server,
    rabbitmq,
    sentinel,
    start_worker,
    valkey,
)
from tests.other_servers import BROKER, BROKERS
from tests.servers import broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_celery import CeleryTestWorker

# Each is for one broker alone, and runs where the run is for that one.
collect_ignore = [f"brokers/test_{name}.py" for name in BROKERS if name != BROKER]

__all__ = [
    "broker_url",
    "database",
    "database_url",
    "mariadb",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres_server",
    "rabbitmq",
    "sentinel",
    "start_worker",
    "valkey",
]


@pytest.fixture
def default_redis_broker() -> Iterator[ValkeyNode]:
    """The broker's process."""
    node = ValkeyNode.spawn("broker")
    yield node
    node.teardown()


@pytest.fixture
def default_redis_backend() -> Iterator[ValkeyNode]:
    """The result backend's process."""
    node = ValkeyNode.spawn("backend")
    yield node
    node.teardown()


@pytest.fixture
def celery_broker(request: pytest.FixtureRequest) -> Iterator[CeleryTestBroker]:
    """The broker's process; this process's bus publishes to it as well."""
    if BROKER is None:
        node = request.getfixturevalue("celery_redis_broker")
    else:
        request.getfixturevalue("broker_url")  # which starts it, and empties it
        node = CeleryTestBroker(OtherBrokerNode(request.getfixturevalue(BROKER), BROKER))
    with broker(node.config()["host_url"]):
        yield node


@pytest.fixture
def default_worker_container_cls() -> type[WorkerNode]:
    """The worker's class."""
    return WorkerNode


@pytest.fixture(params=["prefork", "threads"])
def worker_pool(request: pytest.FixtureRequest) -> str:
    """Celery's name of the worker's pool."""
    return str(request.param)


@pytest.fixture
def default_worker_container(
    default_worker_container_cls: type[WorkerNode],
    default_worker_env: dict[str, str],
    database_url: str,
    worker_pool: str,
    tmp_path: Path,
) -> Iterator[WorkerNode]:
    """The worker's process, when it is ready."""
    environment = {**default_worker_env, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    node = default_worker_container_cls.spawn(tmp_path, environment, worker_pool)
    try:
        assert node.ready()
        yield node
    finally:
        node.teardown()
        print(f"--- {node.name}\n{node.logs()}")  # noqa: T201 - pytest shows it with a failure


@pytest.fixture
def celery_worker(celery_setup_worker: CeleryTestWorker) -> CeleryTestWorker:
    """The worker, requested by name so that pytest sees the pools that it runs with."""
    return celery_setup_worker


@pytest.fixture(autouse=True)
def current_app() -> Iterator[None]:
    """Restore the current app, which pytest-celery replaces."""
    state: Any = _state
    current, default = state._tls.current_app, state.default_app
    yield
    state._set_current_app(current)
    state.set_default_app(default)

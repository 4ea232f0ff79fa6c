"""A cluster of processes for each test: a broker, a result backend, a worker of this checkout, and their database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import _state

from tests.acceptance.nodes import ValkeyNode, WorkerNode
from tests.fixtures import (
    broker_url,
    database,
    database_url,
    migrated_postgres,
    migrated_sqlite,
    postgres_server,
    start_worker,
    valkey,
)
from tests.servers import broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_celery import CeleryTestBroker, CeleryTestWorker

__all__ = [
    "broker_url",
    "database",
    "database_url",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres_server",
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
def celery_broker(celery_redis_broker: CeleryTestBroker) -> Iterator[CeleryTestBroker]:
    """The one broker that runs as a process here; this process's bus publishes to it as well."""
    with broker(celery_redis_broker.config()["host_url"]):
        yield celery_redis_broker


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
    """The one kind of worker; asked for by name, so that pytest sees the pools that it is to run with."""
    return celery_setup_worker


@pytest.fixture(autouse=True)
def current_app() -> Iterator[None]:
    """pytest-celery makes its setup's app the current one, and leaves it there."""
    state: Any = _state
    current, default = state._tls.current_app, state.default_app
    yield
    state._set_current_app(current)
    state.set_default_app(default)

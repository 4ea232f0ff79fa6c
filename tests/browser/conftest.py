"""Fixtures of the browser tests: a web server, a worker, and a browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test import Client
from django.test.testcases import LiveServerThread

from tests.browser import chromium
from tests.fixtures import broker_url, database_url, migrated_sqlite, start_worker, valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium import webdriver

    from tests.servers import Worker

__all__ = ["broker_url", "database_url", "migrated_sqlite", "start_worker", "valkey"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the screenshots of the documents."""
    parser.addoption("--screenshots", type=Path, help="the folder that screenshots are written to")


def pytest_configure() -> None:
    """Refuse a run without a browser."""
    missing = chromium.missing_packages()
    if missing:
        raise pytest.UsageError(f"The browser tests need the Debian packages: {' '.join(missing)}.")
    if not chromium.AXE.is_file():
        raise pytest.UsageError(f"The browser tests need {chromium.AXE}: make test-browser installs it.")


@pytest.fixture
def database() -> str:
    """The tests are about pages, not about databases."""
    return "sqlite"


@pytest.fixture(scope="session")
def driver() -> Iterator[webdriver.Chrome]:
    """A browser, for all tests."""
    with chromium.started() as browser:
        yield browser


@pytest.fixture
def server(database_url: str) -> Iterator[str]:
    """A web server with the pages on the test's database; its address."""
    thread = LiveServerThread("127.0.0.1", StaticFilesHandler, connections_override={})
    thread.daemon = True
    thread.start()
    thread.is_ready.wait()
    if thread.error is not None:
        raise thread.error
    yield f"http://127.0.0.1:{thread.port}"
    thread.terminate()


@pytest.fixture
def visitor(driver: webdriver.Chrome, server: str, request: pytest.FixtureRequest) -> chromium.Visitor:
    """A person with all permissions, who is logged in."""
    client = Client()
    client.force_login(get_user_model()._default_manager.create_superuser("ana"))
    person = chromium.Visitor(driver, server, request.config.getoption("--screenshots"))
    person.log_in(client)
    person.resize(chromium.WIDTH)
    person.prefer("light")
    return person


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files that stand for faults, of this process and of its workers."""
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setenv("INCIDENT_FOLDER", str(folder))
    return folder


@pytest.fixture
def start_incident_worker(start_worker: Callable[..., Worker], faults: Path) -> Callable[[], Worker]:
    """Start a worker that knows the receivers of the incident."""
    environment = {"DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE, "INCIDENT_FOLDER": os.environ["INCIDENT_FOLDER"]}
    return lambda: start_worker(environment=environment)

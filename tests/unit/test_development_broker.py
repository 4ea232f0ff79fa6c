"""The broker of `signalbus dev` is found without a setting, in development only."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from signalbus import celery
from signalbus.checks import check_settings
from signalbus.core import development_socket
from signalbus.core.development_socket import accepts_connections, project_of, socket_of
from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOP = Path("/home/ana/shop")


@pytest.fixture(autouse=True)
def shared(monkeypatch, tmp_path: Path) -> Path:
    """Use a folder of this test's in the place of /tmp."""
    monkeypatch.setattr(development_socket, "SHARED", tmp_path)
    return tmp_path


@pytest.fixture
def new_app() -> Iterator[None]:
    """Make our own app anew with the settings of the test, and again after it."""
    celery.get_app.cache_clear()
    yield
    celery.get_app.cache_clear()


@pytest.fixture
def development(settings, monkeypatch) -> str:
    """Set DEBUG, no broker, and the settings module of a project; return the broker's address."""
    settings.DEBUG = True
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")
    del settings.CELERY_BROKER_URL
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    address = celery.development_broker()
    assert address is not None
    return address


def test_own_app_uses_it_without_a_configured_broker(development, new_app):
    """With DEBUG and no CELERY_BROKER_URL, messages go to the broker of `dev`."""
    assert celery.get_app().conf.broker_url == development
    assert celery.uses_development_broker()
    assert "manage.py signalbus dev" in celery.broker_remedy()


def test_configured_broker_is_used_instead(development, new_app, settings):
    """A CELERY_BROKER_URL in the settings wins."""
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    assert celery.get_app().conf.broker_url == "redis://127.0.0.1:1/0"
    assert not celery.uses_development_broker()


def test_broker_of_the_environment_is_used_instead(development, new_app, monkeypatch):
    """A CELERY_BROKER_URL in the environment wins."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    assert celery.get_app().conf.broker_url == "redis://127.0.0.1:1/0"


def test_production_never_uses_it(development, new_app, settings):
    """With DEBUG = False there is no broker, as before."""
    settings.DEBUG = False
    assert celery.get_app().conf.broker_url is None
    assert not celery.uses_development_broker()
    assert "CELERY_BROKER_URL is not set" in celery.broker_remedy()


def test_app_of_the_host_does_not_use_it(development, new_app, settings, monkeypatch):
    """The host configures the broker of its own app."""
    monkeypatch.setattr(celery, "symbol_by_name", lambda _path: Celery("theirs", set_as_current=False))
    settings.SIGNALBUS = {"CELERY_APP": "shop.celery:app"}
    assert not celery.get_app().conf.broker_url
    assert not celery.uses_development_broker()


def test_each_checkout_has_its_own(tmp_path: Path):
    """Two projects do not share a socket, and its path fits into a socket's address."""
    assert socket_of(SHOP) == socket_of(SHOP)
    assert socket_of(SHOP) != socket_of(Path("/home/ana/shop-2"))
    assert len(socket_of(Path("/home" * 100)).name) < 30


@pytest.mark.parametrize(
    "names",
    [
        {"__file__": "/home/ana/shop/config.py"},
        {"__file__": "/home/ana/shop/config/__init__.py", "__path__": ["/home/ana/shop/config"]},
        {"__path__": ["/home/ana/shop/config"]},
    ],
)
def test_project_is_the_folder_of_the_settings(monkeypatch, names: dict[str, object]):
    """It is the folder that holds the top package of the settings: the same for a web server, a shell and a worker."""
    monkeypatch.setitem(sys.modules, "config", SimpleNamespace(**names))
    assert project_of("config.settings.local") == SHOP


def test_settings_without_a_file_have_no_project():
    """Settings that were configured in code have no checkout."""
    assert project_of("nowhere.settings") is None


def test_folder_that_others_can_enter_is_refused(shared: Path):
    """Another user could read what is sent."""
    folder = socket_of(SHOP).parent
    folder.chmod(0o755)
    with pytest.raises(ConfigurationError, match="only this user can enter"):
        socket_of(SHOP)


def test_link_in_place_of_the_folder_is_refused(shared: Path):
    """Another user could have made it."""
    folder = socket_of(SHOP).parent
    folder.rename(shared / "elsewhere")
    folder.symlink_to(shared / "elsewhere")
    with pytest.raises(ConfigurationError, match="only this user can enter"):
        socket_of(SHOP)


def test_a_listening_server_is_distinguished_from_a_stale_socket(tmp_path: Path):
    """A socket that a killed server has left accepts nothing."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        assert not accepts_connections(path)
        server.listen()
        assert accepts_connections(path)
    assert path.exists()
    assert not accepts_connections(path)


@pytest.mark.parametrize(("command", "warned"), [("runserver", True), ("check", False)])
def test_server_is_warned_that_dev_does_not_run(development, new_app, monkeypatch, command: str, warned: bool):
    """`runserver` reports it at its start; `check` does not: `dev` may be started after it."""
    monkeypatch.setattr(sys, "argv", ["manage.py", command])
    found = check_settings()
    assert [message.id for message in found] == (["signalbus.W003"] if warned else [])

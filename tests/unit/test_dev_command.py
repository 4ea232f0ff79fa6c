"""`manage.py signalbus dev` refuses a set-up in which it cannot work, with the remedy."""

from __future__ import annotations

import pytest
from celery import Celery
from django.core.management import CommandError, call_command

from signalbus import celery
from signalbus.ledger import operations
from signalbus.management.dev import supervisor


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """Let the tables exist: a unit test has no database."""
    monkeypatch.setattr(operations, "missing", lambda: None)


def app(monkeypatch, **conf: object) -> None:
    """Use an app with some configuration."""
    made = Celery("made", set_as_current=False)
    made.conf.update(conf)
    monkeypatch.setattr(celery, "get_app", lambda: made)


def test_production_is_refused(settings):
    """With DEBUG = False nothing is started, unless it is forced."""
    settings.DEBUG = False
    with pytest.raises(CommandError, match=r"DEBUG is False.*--force"):
        call_command("signalbus", "dev")


def test_forced_dev_needs_a_broker(settings, monkeypatch):
    """The other processes find the embedded broker only while DEBUG is True."""
    settings.DEBUG = False
    app(monkeypatch)
    with pytest.raises(CommandError, match=r"CELERY_BROKER_URL is not set.*only while DEBUG is True"):
        call_command("signalbus", "dev", "--force")


def test_app_of_the_host_needs_a_broker(settings, monkeypatch):
    """The error names the command that starts one."""
    settings.DEBUG = True
    settings.SIGNALBUS = {"CELERY_APP": "shop.celery:app"}
    app(monkeypatch)
    with pytest.raises(CommandError, match=r"broker_url of the Celery app.*python -m signalbus\.embedded"):
        call_command("signalbus", "dev")


def test_configured_broker_that_does_not_answer(settings, monkeypatch):
    """The error names the address, and says that `dev` can start a broker."""
    settings.DEBUG = True
    app(monkeypatch, broker_url="redis://127.0.0.1:1/0")
    with pytest.raises(CommandError, match=r"redis://127\.0\.0\.1:1/0.*starts a broker of its own"):
        call_command("signalbus", "dev")


def test_missing_tables(settings, monkeypatch):
    """The remedy is `migrate`."""
    settings.DEBUG = True
    monkeypatch.setattr(operations, "missing", lambda: "run `manage.py migrate signalbus`")
    with pytest.raises(CommandError, match="migrate signalbus"):
        call_command("signalbus", "dev")


def test_second_dev_of_a_project_is_refused(settings, monkeypatch, tmp_path):
    """A second `dev` would take the socket of the first one."""
    monkeypatch.setattr(supervisor, "accepts_connections", lambda _path: True)
    monkeypatch.setattr(celery, "development_broker", lambda: f"redis+socket://{tmp_path}/a.sock")
    settings.DEBUG = True
    app(monkeypatch, broker_url=f"redis+socket://{tmp_path}/a.sock")
    with pytest.raises(CommandError, match="Another `signalbus dev`"):
        call_command("signalbus", "dev")

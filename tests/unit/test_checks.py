"""System checks: what cannot work is said before anything is sent."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection

from signalbus import Signal, celery
from signalbus.checks import check_names, check_settings, check_sqlite


def on_event(sender, **kwargs):
    """Receive."""


def on_event_too(sender, **kwargs):
    """Receive as well."""


def ids(messages):
    """Give the ids of what a check found."""
    return [message.id for message in messages]


def test_this_project_is_well():
    """The checkout's own signals and receivers pass."""
    assert check_names() == []
    assert check_settings() == []


@pytest.mark.django_db  # since Django 6.1 checks look at databases without being asked
def test_wrong_settings(settings):
    """A wrong setting is an error of ``manage.py check``, and does not end it with a traceback."""
    celery.get_app()  # made while all was well
    settings.SIGNALBUS = {"MAX_BYTE": 1}
    (error,) = check_settings()
    assert error.id == "signalbus.E001"
    assert 'did you mean "MAX_BYTES"' in error.msg
    with pytest.raises(SystemCheckError, match="MAX_BYTES"):
        call_command("check")


def test_two_signals_of_one_name():
    """The error names both places, once."""
    first = Signal("tests.twins")
    second = Signal("tests.twins")
    (error,) = check_names()
    assert error.id == "signalbus.E002"
    assert first.place in error.msg
    assert second.place in error.msg


def test_two_receivers_of_one_id():
    """The error names both places."""
    signal = Signal("tests.crowded")
    signal.connect(on_event, dispatch_uid="event")
    signal.connect(on_event_too, dispatch_uid="event")
    (error,) = check_names()
    assert error.id == "signalbus.E003"
    assert "test_checks.on_event " in error.msg
    assert "test_checks.on_event_too " in error.msg
    assert "dispatch_uid of its own" in error.msg


def test_inline_receivers_of_one_uid_are_djangos_affair():
    """Django ignores the second; so do we, without a word."""
    signal = Signal("tests.crowded_inline")
    signal.connect(on_event, dispatch_uid="event", inline=True)
    signal.connect(on_event_too, dispatch_uid="event", inline=True)
    assert check_names() == []


@pytest.mark.parametrize("travels", ["receiver", "open"])
def test_a_signal_without_a_name(travels):
    """A signal that stands nowhere is an error as soon as something of it would travel."""
    nowhere = [Signal(open=travels == "open")]
    if travels == "receiver":
        assert check_names() == []
        nowhere[0].connect(on_event)
    (error,) = check_names()
    assert error.id == "signalbus.E002"
    assert "assign it to a variable" in error.msg
    assert nowhere[0].place in error.msg


@pytest.mark.django_db
def test_they_are_registered():
    """``manage.py check`` runs them."""
    Signal("tests.found"), Signal("tests.found")  # both gone at once, and so no rivals
    kept = [Signal("tests.found")]
    kept.append(Signal("tests.found"))
    assert "signalbus.E002" in ids(run_checks(tags=["signalbus"]))


@pytest.mark.django_db
class TestSqlite:
    @pytest.fixture(autouse=True)
    def only_on_sqlite(self):
        if connection.vendor != "sqlite":
            pytest.skip("asks SQLite")

    def test_only_when_databases_are_asked_for(self):
        """Ordinary checks open no database."""
        assert check_sqlite() == []
        assert check_sqlite(databases=["other"]) == []

    def test_deferred_transactions(self, monkeypatch):
        """A deferred transaction is warned of, with the setting to write."""
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
        assert "signalbus.W001" in ids(check_sqlite(databases=["default"]))
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"transaction_mode": "IMMEDIATE"})
        assert "signalbus.W001" not in ids(check_sqlite(databases=["default"]))

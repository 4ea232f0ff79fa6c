"""System checks report a wrong set-up before anything is sent."""

from __future__ import annotations

import gc
import sys
import weakref
from contextlib import suppress
from functools import partial

import pytest
from celery import Celery
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection

from signalbus import Signal, celery
from signalbus.checks import check_names, check_refused, check_settings, check_sqlite
from signalbus.receiving.worker import bootstrap


def on_event(sender, **kwargs):
    """Receive."""


def on_event_too(sender, **kwargs):
    """Receive as well."""


def ids(messages):
    """Return the ids of a check's messages."""
    return [message.id for message in messages]


def test_this_project_has_no_errors():
    """The checkout's own signals and receivers pass."""
    gc.collect()  # signals of other tests' modules, which refer to themselves
    assert check_names() == check_refused() == []
    assert check_settings() == []


class TestMissingBroker:
    """A missing CELERY_BROKER_URL is reported by processes that need it."""

    @pytest.fixture(autouse=True)
    def without_broker(self, settings, monkeypatch):
        """Use an app without a broker, in a process that is no management command."""
        monkeypatch.setattr(celery, "get_app", lambda: Celery("bare", set_as_current=False))
        monkeypatch.setattr(sys, "argv", ["celery", "-A", "signalbus", "worker"])

    def test_worker_and_server_are_warned(self, monkeypatch):
        """A worker, ``runserver`` and ``check`` report it."""
        assert ids(check_settings()) == ["signalbus.W003"]
        for command in ("check", "runserver"):
            monkeypatch.setattr(sys, "argv", ["manage.py", command])
            assert ids(check_settings()) == ["signalbus.W003"]

    @pytest.mark.parametrize("command", ["makemigrations", "migrate", "makemessages", "shell", "signalbus"])
    def test_commands_that_need_no_broker_do_not_warn(self, monkeypatch, command):
        """So the steps of the tutorial report it once, at ``check``."""
        monkeypatch.setattr(sys, "argv", ["manage.py", command])
        assert check_settings() == []

    @pytest.mark.parametrize("mode", ["muted", "immediate"])
    def test_test_mode_needs_no_broker(self, settings, mode):
        """Nothing is published under TEST_MODE."""
        settings.SIGNALBUS = {"TEST_MODE": mode}
        assert check_settings() == []


@pytest.mark.django_db  # since Django 6.1 checks look at databases without being asked
def test_a_wrong_setting_is_an_error_of_check(settings):
    """``manage.py check`` reports it, and does not end with a traceback."""
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


def test_two_inline_receivers_of_one_uid_are_no_error():
    """Django ignores the second, and so does the library."""
    signal = Signal("tests.crowded_inline")
    signal.connect(on_event, dispatch_uid="event", inline=True)
    signal.connect(on_event_too, dispatch_uid="event", inline=True)
    assert check_names() == []


@pytest.mark.parametrize("travels", ["receiver", "open"])
def test_a_signal_without_a_name(travels):
    """A signal that is in no variable is an error as soon as a receiver of it runs in a worker."""
    nowhere = [Signal(open=travels == "open")]
    if travels == "receiver":
        assert check_names() == []
        nowhere[0].connect(on_event)
    (error,) = check_names()
    assert error.id == "signalbus.E002"
    assert "assign it to a variable" in error.msg
    assert nowhere[0].place in error.msg


class Shapeless:
    """An object that is no receiver."""


class TestRefused:
    """A receiver that ``connect`` refused is reported, even if the error was swallowed."""

    @pytest.fixture
    def signal(self):
        return Signal("tests.picky")

    def swallowed(self, signal, function, **options):
        """Connect as code does that swallows errors."""
        with suppress(Exception):
            signal.connect(function, **options)

    def test_a_refused_receiver_is_reported(self, signal):
        """The error names the signal, the receiver, the place and the remedy; there is one error for each place."""
        for _ in range(3):

            def webhook(sender, **kwargs):
                pass

            self.swallowed(signal, webhook)
        (error,) = check_refused()
        assert error.id == "signalbus.E004"
        assert "tests.picky" in error.msg
        assert "webhook" in error.msg
        assert "test_checks:" in error.msg
        assert "dispatch_uid=" in error.msg

    @pytest.mark.parametrize(
        ("function", "options", "remedy"),
        [
            (on_event, {"timeout": 0}, "above 0"),
            (on_event, {"sender": 17}, "inline=True"),
            (lambda sender: None, {"inline": True}, "keyword arguments"),
            (Shapeless(), {"dispatch_uid": "object"}, "callable"),
        ],
    )
    def test_each_kind_of_refusal_is_reported(self, signal, settings, function, options, remedy):
        """Django's own refusals, with DEBUG on, are reported as well as ours."""
        settings.DEBUG = True
        self.swallowed(signal, function, **options)
        (error,) = check_refused()
        assert remedy in error.msg

    def test_connecting_again_with_other_options_is_reported(self, signal):
        """The first connection stays, and the second is reported."""
        signal.connect(on_event)
        self.swallowed(signal, on_event, queue="tills")
        (error,) = check_refused()
        assert "queue" in error.msg
        signal.connect(on_event)
        assert check_refused() == []

    @pytest.mark.parametrize("remedy", [{"dispatch_uid": "webhook", "weak": False}, {"inline": True}])
    def test_a_receiver_that_is_connected_later_is_not_reported(self, signal, remedy):
        """The same function or object was connected correctly after the refusal."""

        def make():
            def webhook(sender, **kwargs):
                pass

            return webhook

        self.swallowed(signal, make())
        assert check_refused()
        signal.connect(make(), **remedy)
        assert check_refused() == []
        caller = partial(on_event)
        self.swallowed(signal, caller)
        assert check_refused()
        signal.connect(caller, **{**remedy, "dispatch_uid": "caller"})
        assert check_refused() == []

    def test_another_receiver_does_not_end_the_report(self, signal):
        """The correct connection of one receiver does not count for another."""
        objects = [Listener(), Listener()]
        for each in objects:
            self.swallowed(signal, each.method)
        assert len(check_refused()) == 2
        signal.connect(objects[0].method, dispatch_uid="first")
        assert len(check_refused()) == 1

    def test_a_refused_receiver_is_not_kept_alive(self, signal):
        """Only its text is stored."""

        def webhook(sender, **kwargs):
            pass

        reference = weakref.ref(webhook)
        self.swallowed(signal, webhook)
        del webhook
        gc.collect()
        assert reference() is None
        assert check_refused()

    @pytest.mark.django_db
    def test_manage_py_check_reports_refusals(self, signal):
        """It is an error of ``manage.py check``, which a worker runs at its start too."""
        self.swallowed(signal, lambda **kwargs: None)
        with pytest.raises(SystemCheckError, match="a lambda"):
            call_command("check")


class Listener:
    """An object whose method is a receiver."""

    def method(self, sender, **kwargs):
        """Receive."""


@pytest.mark.django_db
def test_the_checks_are_registered():
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

    def test_ordinary_checks_open_no_database(self):
        """The check of a database runs with ``--database`` only."""
        assert check_sqlite() == []
        assert check_sqlite(databases=["other"]) == []

    def test_deferred_transactions_are_warned_of(self, monkeypatch):
        """The warning names the setting to write."""
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
        assert "signalbus.W001" in ids(check_sqlite(databases=["default"]))
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"transaction_mode": "IMMEDIATE"})
        assert "signalbus.W001" not in ids(check_sqlite(databases=["default"]))

    def test_a_worker_that_starts_warns_of_its_database(self, monkeypatch, caplog):
        """A project that never runs `check --database` sees the warning in the log of its worker."""
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
        bootstrap._check()
        assert "signalbus.W001" in caplog.text

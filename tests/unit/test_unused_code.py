"""System checks report receivers and signals that this process does not use; each check can be silenced."""

from __future__ import annotations

import importlib
import sys

import pytest
from django.core.management import call_command

from signalbus import Signal
from signalbus.checks import check_overlooked
from signalbus.checks.unused_code import modules_not_imported, signals_without_receivers

SIGNALS = "from signalbus import Signal\nsold = Signal()\n"


@pytest.fixture
def app(install_shop):
    """Install an app with a signal, and with the files that the test writes."""
    return lambda **files: install_shop(**{"signals": SIGNALS, **files})


def connecting(imports, call):
    """Write a module that connects a receiver in its fourth line."""
    return f"{imports}\n\n\n{call}\n"


FUNCTION = "def on_sale(sender, **kwargs): ..."
HANDLERS = [
    ("from signalbus import receiver\nfrom the_shop.signals import sold", f"@receiver(sold)\n{FUNCTION}"),
    ("from django.dispatch import receiver\nfrom the_shop.signals import sold", f"@receiver(sold)\n{FUNCTION}"),
    ("from django.dispatch import receiver\nfrom .signals import sold as it", f"@receiver([it])\n{FUNCTION}"),
    ("import signalbus\nfrom django.db.models.signals import post_save", f"@signalbus.receiver(post_save)\n{FUNCTION}"),
    ("import django.dispatch\nfrom . import signals", f"@django.dispatch.receiver(signals.sold)\n{FUNCTION}"),
    ("from the_shop import signals\n", "signals.sold.connect(print)"),
]


@pytest.mark.parametrize(("imports", "call"), HANDLERS)
def test_module_that_is_not_imported_is_named(app, imports, call):
    """The warning names the module, the line and the remedy."""
    folder = app(handlers=connecting(imports, call))
    (warning,) = [message for message in check_overlooked() if message.id == "signalbus.W005"]
    assert f"the_shop.handlers ({folder / 'handlers.py'}:5) connects receivers and is not imported" in warning.msg
    assert "receivers.py" in str(warning.hint)


def test_module_in_a_package_is_named(app):
    """It may be anywhere in the app."""
    app(shop__in____init__="", shop__in__handlers=connecting(*HANDLERS[0]))
    (found,) = modules_not_imported()
    assert found.startswith("the_shop.shop.handlers (")


@pytest.mark.parametrize("name", ["test_shop", "tests", "conftest", "migrations__in__first", "tests__in__shop"])
def test_tests_and_migrations_are_not_named(app, name):
    """Their own tools import them."""
    app(**{name: connecting(*HANDLERS[0])})
    assert modules_not_imported() == []


@pytest.mark.parametrize(
    "source",
    [
        connecting("from django.dispatch import receiver\nfrom django.db.models.signals import post_save",
                   f"@receiver(post_save)\n{FUNCTION}"),
        connecting("from somewhere import receiver, connection", "connection.connect()"),
        connecting("from the_shop.signals import sold", "sold.send(sender=None)  # @receiver("),
        "this is no Python: @receiver(",
    ],
)  # fmt: skip
def test_other_modules_are_not_named(app, source):
    """They connect receivers of Django's signals or other things, or cannot be read."""
    app(handlers=source)
    assert modules_not_imported() == []


def test_imported_module_is_not_named(app):
    """It may be imported in any way; an app that is skipped is not named either."""
    app(handlers=connecting(*HANDLERS[0]))
    importlib.import_module("the_shop.handlers")
    assert modules_not_imported() == []


def test_app_that_is_skipped_is_not_read(app, settings):
    """SKIP_APPS applies to this check too."""
    settings.SIGNALBUS = {"SKIP_APPS": ["shop"]}
    app(handlers=connecting(*HANDLERS[0]))
    assert modules_not_imported() == []


def test_signal_without_receivers_is_named(app):
    """One message names all of them, until a receiver is connected."""
    app(signals=f"{SIGNALS}bought = Signal()\nhook = Signal(open=True)\n")
    assert signals_without_receivers() == ["shop.bought", "shop.sold"]
    (message,) = check_overlooked()
    assert (message.id, message.is_serious()) == ("signalbus.I001", False)
    assert "shop.bought, shop.sold" in message.msg
    assert "SILENCED_SYSTEM_CHECKS" in str(message.hint)
    signals = sys.modules["the_shop.signals"]
    signals.sold.connect(print, inline=True)
    assert signals_without_receivers() == ["shop.bought"]


def test_signals_outside_the_apps_are_not_named():
    """A signal of a test is an example."""
    kept = Signal("tests.unused")
    assert kept.name not in signals_without_receivers()


def test_commands_that_send_nothing_do_not_report(app, monkeypatch):
    """A line in each command would be noise."""
    app(handlers=connecting(*HANDLERS[0]))
    monkeypatch.setattr(sys, "argv", ["manage.py", "makemigrations"])
    assert check_overlooked() == []


@pytest.mark.django_db
def test_the_checks_can_be_silenced(app, settings, capsys):
    """This works like for any system check."""
    app(handlers=connecting(*HANDLERS[0]))
    call_command("check")
    assert "the_shop.handlers" in capsys.readouterr().err
    settings.SILENCED_SYSTEM_CHECKS = ["signalbus.W005", "signalbus.I001"]
    call_command("check")
    assert "the_shop" not in capsys.readouterr().err

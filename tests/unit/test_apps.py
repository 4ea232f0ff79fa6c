"""The signals and receivers of every app are loaded at start-up; an app that fails is named, and can be skipped."""

from __future__ import annotations

import importlib
import sys

import pytest
from django.apps import apps
from django.test import override_settings

from signalbus.apps import discover
from signalbus.exceptions import ConfigurationError

CONFIG = "from django.apps import AppConfig\nclass Shop(AppConfig):\n    name, label = 'the_shop', 'the_label'\n"
RECEIVER = """\
from signalbus import Signal, receiver
signal = Signal('the_shop.s')
@receiver(signal{})
def on_sale(sender, {}):
    pass
"""


@pytest.fixture
def app(tmp_path, monkeypatch, settings):
    """Install an app with the ``receivers.py`` that the test writes."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(source, path="receivers.py", folder=tmp_path):
        (folder / "the_shop").mkdir()
        (folder / "the_shop" / "__init__.py").write_text("")
        (folder / "the_shop" / "apps.py").write_text(CONFIG)
        (folder / "the_shop" / path).write_text(source)
        importlib.invalidate_caches()
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "the_shop"]

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] in {"the_shop", "the_helper"}]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("x = 1\n\n1 / 0", 3, "ZeroDivisionError: division by zero."),
        ("def helper():\n    return {}['key']\nhelper()", 2, "KeyError: 'key'."),
        ("\nfrom the_shop import sold", 2, "ImportError: cannot import name 'sold' from 'the_shop'"),
        ("x = 1\ndef broken(:\n", 2, "SyntaxError: invalid syntax."),
        ("\nimport no_such_package", 2, "ModuleNotFoundError: No module named 'no_such_package'."),
        (RECEIVER.format("", "instance"), 3, "write def on_sale(sender, instance, **kwargs)"),
        (RECEIVER.format(", retries=3", "**kwargs"), 3, "did you mean retry=Retry(max_attempts=3)? signalbus"),
    ],
)
def test_error_begins_with_file_line_and_cause(app, tmp_path, source, line, said):
    """An error in the project's code begins as Python's own, and does not suggest to skip the app."""
    with override_settings(DEBUG=True), pytest.raises(ConfigurationError) as caught:  # without, Django checks less
        app(source)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/the_shop/receivers.py:{line}: ")
    assert said in text
    assert "the_shop.receivers" in text
    assert "SKIP_APPS" not in text
    assert ("install" in text.partition("signalbus imports")[0]) == ("no_such_package" in source)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("source", "cause"), [("\n1 / 0", "ZeroDivisionError"), ("\n1 +", "SyntaxError")])
def test_error_in_a_helper_module_names_that(app, tmp_path, source, cause):
    """The error names the line that failed, not the import of its module."""
    helper = tmp_path / "the_helper.py"
    helper.write_text(source)
    with pytest.raises(ConfigurationError) as caught:
        app("import the_helper")
    assert str(caught.value).startswith(f"{helper}:2: {cause}: ")


def test_error_raised_in_a_library_names_the_call(app, tmp_path):
    """The error names the project's line, not that of the library."""
    with pytest.raises(ConfigurationError) as caught:
        app("import json\n\njson.loads('{')")
    assert str(caught.value).startswith(f"{tmp_path}/the_shop/receivers.py:3: json.decoder.JSONDecodeError: ")


@pytest.mark.parametrize("source", ["import no_such_package", "1 / 0"])
def test_the_error_of_a_third_party_app_suggests_to_skip_it(app, source, tmp_path, monkeypatch):
    """The project cannot correct that app's code."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(packages)
    with pytest.raises(ConfigurationError, match="SKIP_APPS") as caught:
        app(source, folder=packages)
    assert '{"SKIP_APPS": ["the_label"]}' in str(caught.value)


def test_an_error_of_connect_is_not_replaced(app):
    """The error of a refused receiver is raised as it is."""
    source = "from signalbus import Signal, receiver\nreceiver(Signal('the_shop.s'))(lambda **kwargs: None)"
    with pytest.raises(ConfigurationError, match="is a lambda") as caught:
        app(source)
    assert "could not be loaded" not in str(caught.value)


@pytest.mark.parametrize("name", ["the_shop", "the_label"])
def test_an_app_can_be_skipped(app, name):
    """An app in SKIP_APPS, by name or label, is not loaded; all others are."""
    with override_settings(SIGNALBUS={"SKIP_APPS": [name]}):
        app("1 / 0")
        discover("receivers")
    assert "the_shop.receivers" not in sys.modules
    assert "tasks.marketing.receivers" in sys.modules


def test_an_app_without_these_modules_is_fine(app):
    """No app needs a ``signals.py`` or ``receivers.py``."""
    app("", "views.py")
    discover("receivers")
    assert apps.is_installed("the_shop")

"""The signals and receivers of every app are found at start-up; one that fails is named, and can be left out."""

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
    """Install an app whose ``receivers.py`` holds what the test writes."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(source, path="receivers.py"):
        (tmp_path / "the_shop").mkdir()
        (tmp_path / "the_shop" / "__init__.py").write_text("")
        (tmp_path / "the_shop" / "apps.py").write_text(CONFIG)
        (tmp_path / "the_shop" / path).write_text(source)
        importlib.invalidate_caches()
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "the_shop"]

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "the_shop"]:
        del sys.modules[name]


@pytest.mark.parametrize("source", ["import no_such_package", "1 / 0"])
def test_a_module_that_fails_is_named(app, source):
    """The error names the module and the cure; what the module raised is the cause."""
    with pytest.raises(ConfigurationError, match=r"the_shop\.receivers could not be loaded: .*SKIP_APPS") as caught:
        app(source)
    assert isinstance(caught.value.__cause__, (ImportError, ZeroDivisionError))


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("x = 1\n\n1 / 0", 3, "mend it there"),
        ("def helper():\n    return {}['key']\nhelper()", 2, "mend it there"),
        ("\nimport no_such_package", 2, "install what it needs"),
        (RECEIVER.format("", "instance"), 3, "write def on_sale(sender, instance, **kwargs)"),
        (RECEIVER.format(", retries=3", "**kwargs"), 3, "did you mean retry=Retry(max_attempts=3)?"),
    ],
)
def test_error_names_file_line_and_remedy(app, settings, source, line, said):
    """The line is the project's, and the remedy fits the kind of error."""
    settings.DEBUG = True
    with pytest.raises(ConfigurationError) as caught:
        app(source)
    assert f"/the_shop/receivers.py:{line}" in str(caught.value)
    assert said in str(caught.value)
    assert ("guard the import" in str(caught.value)) == (said == "install what it needs")


def test_our_own_error_stays(app):
    """A receiver that is refused says so itself."""
    source = "from signalbus import Signal, receiver\nreceiver(Signal('the_shop.s'))(lambda **kwargs: None)"
    with pytest.raises(ConfigurationError, match="is a lambda") as caught:
        app(source)
    assert "could not be loaded" not in str(caught.value)


@pytest.mark.parametrize("name", ["the_shop", "the_label"])
def test_an_app_can_be_left_out(app, name):
    """What is named by name or label is not loaded; everything else is."""
    with override_settings(SIGNALBUS={"SKIP_APPS": [name]}):
        app("1 / 0")
        discover("receivers")
    assert "the_shop.receivers" not in sys.modules
    assert "tasks.marketing.receivers" in sys.modules


def test_an_app_without_such_a_module(app):
    """Nobody has to have one."""
    app("", "views.py")
    discover("receivers")
    assert apps.is_installed("the_shop")

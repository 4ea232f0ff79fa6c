"""A receiver whose sender never sends its signal is reported by a system check and by ``status``."""

from __future__ import annotations

import importlib
import re
import sys

import pytest

from signalbus.checks import check_overlooked
from signalbus.checks.unsent import receivers_without_sends

SIGNALS = "from signalbus import Signal\nsold = Signal()\nbought = Signal()\n"
RECEIVERS = """\
from django.contrib.auth.models import Group
from signalbus import receiver
from .signals import sold

@receiver(sold, sender=Group)
def on_sale(sender, **kwargs): ...
"""
MODELS = "from django.contrib.auth import models\nfrom django.contrib.auth.models import Group, User\n"
IMPORTS = f"{MODELS}from the_shop.signals import sold\n"


@pytest.fixture
def app(install_shop):
    """Install an app with a signal, and with the files that the test writes."""
    return lambda **files: install_shop(**{"signals": SIGNALS, "receivers": RECEIVERS, **files})


SENDS = [
    "sold.send(sender=User)",
    "sold.send(User, price=1)",
    "sold.send_robust(sender=User)",
    "async def sell():\n    await sold.asend(sender=User)",
    "sold.send_many(User, [{}])",
    "sold.send_later(1, User)",
    "sold.send_later(1, sender=User)",
    "sold.send(sender=models.User)",
    "def sell():\n    from .signals import sold as it\n    it.send(sender=User)",
    "from . import signals\nsignals.sold.send(sender=User)",
    "import the_shop.signals\nthe_shop.signals.sold.send(sender=User)",
    "sold.send(sender=None)",
    "sold.send(sender='nightly')",
    "sold.send(sender=User) if sold.has_listeners(User) else None",
]


@pytest.mark.parametrize(
    ("send", "module"),
    [*((send, "services") for send in SENDS), (SENDS[0], "shop__in__services"), (SENDS[0], "management__in__services")],
)
def test_receiver_of_another_sender_is_named(app, send, module):
    """The warning names the receiver, its sender, and who sends where."""
    source = IMPORTS + send.replace("from .", "from the_shop.").replace("the_shop. import", "the_shop import")
    folder = app(**{module: source})
    (found,) = receivers_without_sends()
    assert found.startswith(f"the_shop.receivers.on_sale ({folder}/receivers.py:")
    assert "listens to auth.Group as the sender of shop.sold, which is sent from " in found
    line = next(number for number, line in enumerate(source.splitlines(), 1) if re.search(r"\.a?send", line))
    assert f"services.py:{line})" in found
    (warning,) = [message for message in check_overlooked() if message.id == "signalbus.W008"]
    assert warning.msg == f"{found}: it receives nothing."
    assert "SILENCED_SYSTEM_CHECKS" in str(warning.hint)


CLASS = """\
class Till:
    def sell(self):
        sold.send({})

    @classmethod
    def sell_all(cls):
        sold.send(sender=cls)

class SubTill(Till):
    pass
"""


@pytest.mark.parametrize("sender", ["sender=self.__class__", "sender=type(self)", "self.__class__", "sender=self"])
def test_class_that_sends_itself(app, sender):
    """It is known, with its subclasses, where its module is imported."""
    app(services=IMPORTS + CLASS.format(sender))
    assert receivers_without_sends() == []
    importlib.import_module("the_shop.services")
    (found,) = receivers_without_sends()
    for name in ("the_shop.services:SubTill", "the_shop.services:Till"):
        assert f"{name} (" in found


@pytest.mark.parametrize("name", ["Till", "SubTill"])
def test_a_receiver_of_a_class_that_sends_itself_is_accepted(app, name):
    """Whichever of them it listens to."""
    receivers = RECEIVERS.replace(
        "django.contrib.auth.models import Group", f"the_shop.services import {name} as Group"
    )
    app(services=IMPORTS + CLASS.format("sender=type(self)"), receivers=receivers)
    assert receivers_without_sends() == []


UNCERTAIN = [
    "",  # nobody sends it, or somebody elsewhere does
    "sold.send(sender=User)\nsold.send(sender=Group)",
    "def sell(who):\n    sold.send(sender=who)",
    "sold.send(sender=User)\ndef sell(who):\n    sold.send(who)",
    "sold.send(sender=User)\ndef sell(**options):\n    sold.send(**options)",
    "sold.send(sender=User)\ndef sell(*options):\n    sold.send(*options)",
    "sold.send(sender=User)\nanother = sold",
    "sold.send(sender=User)\nemit(sold, Group)",
    "sold.send(sender=User)\ncall(sold.send)",
    "sold.send(sender=User)\nSIGNALS = {'sold': sold}",
    "sold.send(sender=no_such_name)",
    "sold.send(sender=User.no_such_name)",
    "sold.send(",
    "mail.send(sender=User)",
]


@pytest.mark.parametrize("source", UNCERTAIN)
def test_uncertain_senders_are_not_reported(app, source):
    """Where its sender may send, or the signal goes somewhere that cannot be followed."""
    app(services=IMPORTS + source)
    assert receivers_without_sends() == []


@pytest.mark.parametrize("connection", ["sold", "[sold, bought], sender=User", "sold, sender='auth.User'"])
def test_receivers_that_can_be_reached_are_accepted(app, connection):
    """Those of any sender, of several signals, of a text."""
    receivers = RECEIVERS.replace("import Group", "import User").replace("import sold", "import bought, sold")
    receivers = receivers.replace("sold, sender=Group", connection)
    app(
        services=f"{IMPORTS}from the_shop.signals import bought\nsold.send(User)\nbought.send(User)",
        receivers=receivers,
    )
    assert receivers_without_sends() == []


@pytest.mark.parametrize("name", ["test_services", "tests", "tests__in__services", "conftest"])
def test_sends_of_tests_do_not_count(app, name):
    """Neither for nor against."""
    app(services=IMPORTS + "sold.send(User)", **{name: IMPORTS + "sold.send(Group)"})
    assert len(receivers_without_sends()) == 1


def test_sends_of_modules_outside_the_apps_count(app, tmp_path):
    """Once they are imported."""
    (tmp_path / "the_services.py").write_text(IMPORTS + "def sell():\n    sold.send(Group)")
    app(services=IMPORTS + "sold.send(User)")
    importlib.import_module("the_services")
    try:
        assert receivers_without_sends() == []
    finally:
        del sys.modules["the_services"]


def test_many_senders_are_counted(app):
    """The line stays a line."""
    app(services=IMPORTS + "".join(f"sold.send(sender='till {number}')\n" for number in range(9)))
    (found,) = receivers_without_sends()
    assert found.endswith("services.py:8), 4 others only")


def test_open_signals_are_not_checked(app):
    """Their senders may be anywhere."""
    app(services=IMPORTS + "sold.send(User)", signals=SIGNALS.replace("Signal()", "Signal(open=True)"))
    assert receivers_without_sends() == []


def test_the_example_projects_receivers_are_accepted():
    """Each is sent to."""
    assert receivers_without_sends() == []

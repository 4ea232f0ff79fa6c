"""The name of a signal is its variable's or a given one, and is unique."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib import reload
from pathlib import Path
from types import ModuleType

import pytest
from django.db import models

from signalbus import Signal
from signalbus.exceptions import ConfigurationError
from signalbus.registration.registry import registry
from signalbus.testing import captured
from tasks.admissions import signals as admissions_signals

HERE = "tests.unit.test_naming"

order_placed = Signal()


class Order:
    """A class that holds a signal."""

    shipped = Signal()
    placed = order_placed  # another name for it

    class Line:
        """A class inside a class."""

        added = Signal()


class SubclassedSignal(Signal):
    """A signal of a host project's own class."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self.topic = topic


subclassed = SubclassedSignal("orders")


def on_order(sender: object, **kwargs: object) -> None:
    """Receive."""


@pytest.fixture
def module(monkeypatch):
    """Make modules out of source code."""

    def make(name, source):
        made = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made)
        exec(source, made.__dict__)
        return made

    return make


class TestDeclaredName:
    def test_a_signal_of_an_app(self):
        """Its name is the app's label and the variable, in any module of the app."""
        assert admissions_signals.cohort_saved.name == "admissions.cohort_saved"

    def test_a_signal_of_a_subpackage_of_an_app(self, module):
        """A module below the app's package belongs to the app."""
        made = module("tasks.admissions.billing.events", "from signalbus import Signal\npaid = Signal()")
        assert made.paid.name == "admissions.paid"

    def test_a_signal_outside_of_apps(self):
        """Its name is the whole module path and the variable."""
        assert order_placed.name == f"{HERE}.order_placed"

    def test_a_signal_of_a_class(self):
        """A class attribute is named after the class, also after one inside another."""
        assert Order.shipped.name == f"{HERE}.Order.shipped"
        assert Order.Line.added.name == f"{HERE}.Order.Line.added"

    def test_a_signal_of_a_model(self, module):
        """A model may have signals as attributes."""
        made = module(
            "tasks.admissions.abstract_models",
            "from django.db import models\nfrom signalbus import Signal\n"
            "class Base(models.Model):\n    saved = Signal()\n    class Meta:\n        abstract = True\n",
        )
        assert issubclass(made.Base, models.Model)
        assert made.Base.saved.name == "admissions.Base.saved"

    def test_a_class_attribute_does_not_rename_a_signal(self):
        """A class may refer to a module's signal."""
        assert Order.placed is order_placed
        assert order_placed.name == f"{HERE}.order_placed"

    def test_a_signal_of_a_subclass(self):
        """A subclass's own ``__init__`` is not the place of the signal."""
        assert subclassed.name == f"{HERE}.subclassed"
        assert subclassed.place.startswith(HERE)

    def test_a_given_name_is_the_name(self):
        """``Signal("name")`` sets it."""
        assert Signal("shop.emptied").name == "shop.emptied"

    @pytest.mark.parametrize("wrong", ["", 7, b"shop.emptied", "shop\0emptied", "x" * 256])
    def test_a_name_must_be_a_text(self, wrong):
        """Another type is refused at the declaration; so is a former name of another type."""
        with pytest.raises(ConfigurationError, match="A signal's name is a text"):
            Signal(wrong)
        with pytest.raises(ConfigurationError, match="A signal's name is a text"):
            Signal("shop.filled", was=[wrong])

    def test_repr_has_the_name_or_the_place(self):
        """A signal without a name shows its place."""
        assert repr(Signal("shop.emptied")) == "<Signal shop.emptied>"
        assert HERE in repr(Signal())

    def test_repr_names_the_signal_once_it_has_a_name(self, module):
        """A log line has the developer's name of the signal, also if nothing was sent yet."""
        assert repr(module("tasks.admissions.made", "from signalbus import Signal\nsold = Signal()").sold) == (
            "<Signal admissions.sold>"
        )
        till = module("tests.made", "from signalbus import Signal\nclass Till:\n    sold = Signal()").Till
        assert repr(till.sold) == "<Signal tests.made.Till.sold>"


class TestUnnamed:
    def test_an_unnamed_signal_cannot_send_to_a_worker(self):
        """``send`` raises, and names the signal's place and the remedy."""
        nowhere = [Signal()]
        nowhere[0].connect(on_order)
        with captured() as sent, pytest.raises(ConfigurationError, match="assign it to a variable") as raised:
            nowhere[0].send(None)
        assert f"{HERE}:" in str(raised.value)
        assert not sent

    def test_an_unnamed_signal_can_send_to_inline_receivers(self):
        """Without receivers in workers it needs no name."""
        nowhere = [Signal()]
        assert nowhere[0].send(None) == []
        nowhere[0].connect(on_order, inline=True)
        assert nowhere[0].send(None) == [(on_order, None)]

    def test_a_signal_of_a_local_class_has_no_name(self):
        """A worker cannot find a class that a function made."""

        class Local:
            happened = Signal()

        with pytest.raises(ConfigurationError, match="has no name"):
            _ = Local.happened.name

    def test_an_unnamed_open_signal_cannot_send(self):
        """Messages of an open signal always go to workers."""
        nowhere = [Signal(open=True)]
        with pytest.raises(ConfigurationError, match="has no name"):
            nowhere[0].send(None)


class TestDuplicateNames:
    def test_two_signals_of_one_name(self):
        """Whichever of the two sends, the error names both places, in one order."""
        first = Signal("shop.rivals")
        second = Signal("shop.rivals")
        first.connect(on_order)
        second.connect(on_order)
        messages = []
        for signal in (first, second):
            with captured() as sent, pytest.raises(ConfigurationError) as raised:
                signal.send(None)
            assert not sent
            messages.append(str(raised.value))
        assert first.place != second.place
        assert all(first.place in message and second.place in message for message in messages)
        assert messages[0] == messages[1]

    def test_a_later_signal_of_the_same_name_is_noticed(self):
        """A signal that has sent before raises once a second one has its name."""
        first = Signal("shop.late")
        first.connect(on_order)
        with captured() as sent:
            first.send(None)
            assert len(sent) == 1
            second = Signal("shop.late")
            with pytest.raises(ConfigurationError, match=r"Two signals are called 'shop.late'"):
                first.send(None)
            del second
            gc.collect()
            Signal("shop.other")  # whoever came since is reason to look again
            first.send(None)

    def test_signals_of_a_factory_are_told_apart_by_the_caller(self):
        """A project's own function that makes signals is one place."""

        def event(name):
            return Signal(name)

        first = event("shop.made")
        second = event("shop.made")
        with pytest.raises(ConfigurationError, match=r"called at .*called at ") as raised:
            _ = first.name
        assert first.site in str(raised.value)
        assert second.site in str(raised.value)

    def test_the_same_line_again_is_no_duplicate(self):
        """A fixture makes its signal anew for each test, and Django may keep the old ones alive."""
        for _ in range(2):
            signal = Signal("shop.fixture")
            signal.connect(on_order)
            assert signal.name == "shop.fixture"

    def test_a_given_name_equals_a_declared_one(self):
        """They are duplicates."""
        signal = Signal(f"{HERE}.Order.shipped")
        with pytest.raises(ConfigurationError, match="rename one"):
            _ = signal.name
        with pytest.raises(ConfigurationError, match="rename one"):
            _ = Order.shipped.name

    def test_a_reloaded_module_makes_no_duplicates(self, tmp_path, monkeypatch):
        """The signals of the module replace the old ones, edited or not, although something still refers to these."""
        path = tmp_path / "reloaded_events.py"
        source = "gone = Signal()\nstays = Signal('shop.stays')\nclass Shop:\n    closed = Signal()\n"
        path.write_text(f"from signalbus import Signal\n{source}")
        monkeypatch.syspath_prepend(str(tmp_path))
        import reloaded_events  # type: ignore[import-not-found]

        kept = [reloaded_events.gone, reloaded_events.stays, reloaded_events.Shop.closed]
        assert kept[0].name == "reloaded_events.gone"
        path.write_text(f"from signalbus import Signal\n\n\n# edited\n{source}")
        again = reload(reloaded_events)
        assert again.gone is not kept[0]
        assert [signal.name for signal in (again.gone, again.stays, again.Shop.closed, *kept)] == [
            "reloaded_events.gone",
            "shop.stays",
            "reloaded_events.Shop.closed",
        ] * 2
        assert registry.signal("reloaded_events.gone") is again.gone
        assert registry.signal("shop.stays") is again.stays


class TestLookup:
    def test_a_signal_is_found_by_name(self):
        """An undeclared name gives None."""
        assert registry.signal(f"{HERE}.order_placed") is order_placed
        assert registry.signal("shop.never_declared") is None

    def test_a_signal_that_is_declared_later_is_found(self):
        """An unknown name is found once it is declared."""
        assert registry.signal("shop.declared_late") is None
        late = Signal("shop.declared_late")
        assert registry.signal("shop.declared_late") is late

    def test_a_signal_is_found_by_a_former_name(self):
        """``was=`` takes several names, or one text."""
        renamed = Signal("shop.checked_out", was=["shop.paid", "shop.payed"])
        again = Signal("shop.refunded", was="shop.returned")
        assert registry.signal("shop.paid") is renamed
        assert registry.signal("shop.payed") is renamed
        assert registry.signal("shop.returned") is again

    def test_a_name_in_use_wins_over_a_former_one(self):
        """The signal that has the name today gets its messages."""
        former = Signal("shop.v2", was=["shop.v1"])
        today = Signal("shop.v1")
        assert registry.signal("shop.v1") is today
        assert registry.signal("shop.v2") is former

    def test_an_unknown_name_is_looked_for_once(self, monkeypatch):
        """The look-up walks over all signals once, not each time."""
        registry.signal("shop.nothing")
        monkeypatch.setattr(type(registry), "_index", lambda self: pytest.fail("walked again"))
        assert registry.signal("shop.nothing_either") is None

    def test_the_registry_has_only_weak_references(self):
        """A signal without other references is collected."""
        Signal("shop.forgotten")
        gc.collect()
        assert registry.signal("shop.forgotten") is None


EARLY = """
from signalbus import Signal, receiver, Retry, Snapshot, current
early = Signal("shop.early")
nameless = Signal()
cached = Signal("shop.cached", use_caching=True)

def hear(sender, **kwargs):
    return kwargs["value"]

early.connect(hear, inline=True)
nameless.connect(hear, inline=True)
assert early.send(None, value=1) == [(hear, 1)]
assert early.name == "shop.early"
assert nameless.send_robust(None, value=1) == [(hear, 1)]
assert cached.send("nobody") == []

@receiver(nameless, retry=Retry(max_attempts=3), dispatch_uid="travels")
def travels(sender, **kwargs):
    pass

try:
    nameless.send(None, value=1)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_signals_work_before_apps_are_loaded(tmp_path):
    """``from signalbus import Signal`` needs no settings, nor do declaring, connecting and inline receivers."""
    command = [sys.executable, "-W", "error", "-c", EARLY]
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert "ConfigurationError" in result.stdout
    assert "call django.setup() first" in result.stdout

"""A bridge is named after the module that made the plain signal, not after a module that imports it."""

from __future__ import annotations

import importlib
import inspect
import sys

import pytest
from django.core.signals import setting_changed
from django.dispatch import Signal as DjangoSignal

from signalbus.bridging.origin import Claim, claim_of, name_of_plain


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Write modules, then import them in order."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def load(sources):
        for path, source in sources.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(source)
        importlib.invalidate_caches()
        names = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in sources]
        return [importlib.import_module(name) for name in names]

    yield load
    for name in set(sys.modules) - before:
        del sys.modules[name]


MADE = "from django.dispatch import Signal\nsaved = Signal()\n"


@pytest.mark.parametrize(
    "importer",
    [
        "from the_maker import saved",
        "from the_maker import saved as kept",
        "from the_maker import *",
        "import the_maker\nsaved = the_maker.saved",
        "from the_maker import saved\nkept = saved",
        "import importlib\nsaved = getattr(importlib.import_module('the_maker'), 'saved')",
        "from django.dispatch import Signal\ntry: from the_maker import saved\nexcept ImportError: saved = Signal()",
        "import sys, the_maker\nvars(sys.modules[__name__])['saved'] = the_maker.saved",
    ],
)
@pytest.mark.parametrize(
    "maker",
    [
        MADE,
        "import django.dispatch\nsaved: object = django.dispatch.Signal(use_caching=True)",
        "from django.db.models.signals import ModelSignal as S\nif True:\n    gone, (saved, *rest) = 1, (S(), 2)",
        "from django.dispatch import Signal\nclass Own(Signal): pass\nsaved = Own()",
    ],
)
def test_importers_with_likelier_names(shop, importer, maker):
    """A shorter name, or one that ends with ``signals``, does not make an importer the origin."""
    module, *_ = shop({"the_maker.py": maker, "signals.py": importer, "a.py": importer})
    assert name_of_plain(module.saved) == "the_maker.saved"


def test_the_order_of_imports_does_not_matter(shop):
    """A name does not depend on the loaded modules, and does not change."""
    _, module = shop({"a.py": "from pkg.signals import saved", "pkg/signals.py": MADE})
    assert name_of_plain(module.saved) == "pkg.signals.saved"
    shop({"b.py": "from a import saved"})
    assert name_of_plain(module.saved) == "pkg.signals.saved"


def test_a_package_that_reexports_it(shop):
    """A package's ``__init__`` has the shorter name, and is not the origin."""
    _, package = shop(
        {"pkg/made_here.py": MADE, "pkg/__init__.py": "from .made_here import saved\n__all__ = ['saved']"}
    )
    assert name_of_plain(package.saved) == "pkg.made_here.saved"


def test_a_signal_of_a_factory_belongs_to_the_caller(shop):
    """The caller of the factory is the origin, not an importer."""
    factory = "from django.dispatch import Signal\ndef make():\n    return Signal()\n"
    made = "from factory import make\nsaved = make()"
    _, module, _ = shop({"factory.py": factory, "the_maker.py": made, "a.py": "from the_maker import saved"})
    assert name_of_plain(module.saved) == "the_maker.saved"


def test_without_sources(shop, monkeypatch):
    """If no source can be read, the likeliest module names the signal."""
    module, *_ = shop({"the_signals.py": MADE, "a.py": "from the_signals import saved"})
    monkeypatch.setattr(inspect, "getsource", lambda module: raise_(OSError()))
    assert name_of_plain(module.saved) == "the_signals.saved"


def test_djangos_signals_keep_their_names():
    """Messages in flight may have these names."""
    import django.test.signals
    import django.utils.autoreload  # noqa: F401

    for module in (
        "django.core.signals",
        "django.contrib.auth.signals",
        "django.db.backends.signals",
        "django.db.models.signals",
        "django.test.signals",
        "django.utils.autoreload",
    ):
        for variable, signal in list(vars(sys.modules[module]).items()):
            if isinstance(signal, DjangoSignal) and claim_of(module, variable) is Claim.MADE:
                assert name_of_plain(signal) == f"{module}.{variable}"
    assert name_of_plain(setting_changed) == "django.core.signals.setting_changed"


def raise_(error):
    """Raise, in a place that takes an expression only."""
    raise error

"""Name senders, classes and functions by module and qualified name, and find them again among the installed apps.

`encoder` and `decoder` use it for the sender of a message and for classes in a payload, and ``connect`` for the senders
of receivers. Models and their rows are named by `references`.
"""

from __future__ import annotations

import importlib
import sys
from types import BuiltinFunctionType, FunctionType
from typing import Any, ClassVar, Final, TypeGuard

from django.apps import apps
from django.db.models import Model
from django.utils.functional import LazyObject

from signalbus.compat.django_internals import wrapped_in
from signalbus.exceptions import PayloadError, UnknownClass

SENDERS: Final = (type, FunctionType, BuiltinFunctionType)
_SHOWN: Final = 100

# The senders that receivers were connected for: resolvable although they may stand outside the installed apps.
_senders: dict[str, object] = {}


def unwrapped(value: Any) -> Any:
    """Return the object in a lazy wrapper (``request.user``), and any other object as it is."""
    return unwrapped(wrapped_in(value)) if issubclass(type(value), LazyObject) else value


def shown(text: str) -> str:
    """Return a text from a message in a form fit for a log: short, and without line breaks."""
    text = cut(text)
    return text if text.isprintable() else ascii(text)


def cut(text: str) -> str:
    """Return the beginning of a text that may be of any length."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def is_model(sender: object) -> TypeGuard[type[Model]]:
    """Return whether this is a model class with rows; an abstract one is a class as any other."""
    return isinstance(sender, type) and issubclass(sender, Model) and not sender._meta.abstract  # noqa: SLF001  (public)


def name_of(sender: object) -> str | None:
    """Return a sender's stable name, which look-ups compare.

    Args:
        sender: None, a text, a class, a function or a model instance, which counts as its class.

    Returns:
        None for None, the text, ``admissions.Cohort`` for a model, ``module:qualname`` for the rest.

    Raises:
        PayloadError: an object of any other kind has no stable name.
    """
    plain = unwrapped(sender)
    if plain is None:
        return None
    if isinstance(plain, str):
        return str.__str__(plain)
    kind = plain if isinstance(plain, type) else type(plain)
    if issubclass(kind, Model):
        return kind._meta.label  # noqa: SLF001  (Django documents _meta)
    if isinstance(plain, SENDERS):
        return f"{plain.__module__}:{plain.__qualname__}"
    raise PayloadError(f"{kind.__qualname__}: take None, a text, a class, a function or a model instance", "sender")


def allow_sender(sender: object) -> None:
    """Let messages name this class or function although it may be outside of the installed apps.

    ``connect`` calls it for each sender of a receiver. Models and texts need no permission, and are ignored.
    """
    if not isinstance(sender, SENDERS) or (isinstance(sender, type) and issubclass(sender, Model)):
        return
    name = f"{sender.__module__}:{sender.__qualname__}"
    if "<" not in name:
        _senders[name] = sender


def importable_name(target: Any, *, senders: bool = False) -> str:
    """Return the ``module:qualname`` by which a worker finds a class or function.

    Args:
        target: the class or function.
        senders: whether those that receivers are connected for count too.

    Raises:
        PayloadError: a worker would not find it.
    """
    name = f"{target.__module__}:{target.__qualname__}"
    if "<" in name:
        raise PayloadError(f"{name} was made in a function, and no worker finds it: define it at the top of a module")
    try:
        found = resolve_class(name, senders=senders)
    except UnknownClass as error:
        raise PayloadError(f"a worker may not look this up: {error}") from error
    if found is not target:
        raise PayloadError(f"{name} is another object than the one sent: send the one that the module holds")
    return name


def resolve_class(name: str, *, senders: bool = False) -> Any:
    """Find the class or function that a message names, in the modules of installed apps and nowhere else.

    Args:
        name: ``module:qualname``.
        senders: whether those that receivers are connected for count too.

    Raises:
        UnknownClass: no installed app has it, or it cannot be looked up by that name.
    """
    if senders and name in _senders:
        return _senders[name]
    module_name, _, path = name.partition(":")
    if not _in_installed_app(module_name):
        raise UnknownClass(
            shown(name), "only modules of installed apps are looked in: move it into one, or send its name or value"
        )
    found = module = _module(module_name, name)
    for part in path.split("."):
        # Only through classes, and only what they hold themselves: no attribute is computed, no import followed.
        member = vars(found).get(part) if found is module or isinstance(found, type) else None
        found = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
    if not isinstance(found, SENDERS) or (found.__module__, found.__qualname__) != (module_name, path):
        raise UnknownClass(shown(name), "no such class or function here: define it, or roll this worker out")
    return found


def _module(module_name: str, name: str) -> Any:
    module = sys.modules.get(module_name)
    if module is not None:
        return module
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UnknownClass(shown(name), f"its module cannot be imported here: {type(error).__name__}") from error


class Installed:
    """Facts about the installed apps, computed anew whenever Django's registry has changed."""

    configs: object = None
    modules: frozenset[str] = frozenset()
    models: ClassVar[dict[str, type[Model]]] = {}  # those that messages have named, by their labels

    @classmethod
    def read(cls) -> type[Installed]:
        if cls.configs is not apps.app_configs or len(cls.modules) != len(apps.app_configs):
            cls.modules = frozenset(config.name for config in apps.get_app_configs())
            cls.models = {}
            cls.configs = apps.app_configs
        return cls


def _in_installed_app(module_name: str) -> bool:
    names = Installed.read().modules
    while module_name and module_name not in names:
        module_name = module_name.rpartition(".")[0]
    return bool(module_name)

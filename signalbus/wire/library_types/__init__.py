"""Encode and decode values of the standard library, of Django and of other libraries, a module for each library.

`wire/values` asks here for types that no other rule knows. A library is imported only if one of its values is sent,
which has imported it already, or is received.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured

from signalbus.wire.values.registered_types import LIBRARY_MARK

if TYPE_CHECKING:
    from signalbus.wire.values.registered_types import TypeAdapter

# The modules here by the packages that they serve, longest first; each has `adapter_for(kind)` and `BY_NAME`.
_MODULES: Final = {
    "django.contrib.gis.geos": "geometries",
    "django": "django_types",
    "djmoney": "money_values",
    "moneyed": "money_values",
    "numpy": "numpy_values",
    "phonenumber_field": "phone_numbers",
    "phonenumbers": "phone_numbers",
}
_STANDARD: Final = "standard_types"
# The modules here by the first part of the names under which their values travel, and the library that each needs.
_NAMES: Final = {
    "python": (_STANDARD, "a newer signalbus"),
    "django": ("django_types", "a newer signalbus"),
    "geos": ("geometries", "GEOS, the library of GeoDjango"),
    "money": ("money_values", "django-money or py-moneyed"),
    "phone": ("phone_numbers", "django-phonenumber-field or phonenumbers"),
    "numpy": ("numpy_values", "numpy"),
}
_adapters: Final[dict[type, TypeAdapter | None]] = {}


def adapter_for(kind: type) -> TypeAdapter | None:
    """Return the adapter for a library's type; None if it is no type of a library that is known here.

    Args:
        kind: the exact type of a value.
    """
    if kind not in _adapters:
        if len(_adapters) > 1000:  # noqa: PLR2004 - of a host that makes classes without end
            _adapters.clear()
        _adapters[kind] = _find(kind)
    return _adapters[kind]


def _find(kind: type) -> TypeAdapter | None:
    # A subclass of the host's may belong to a library as well: Django's files have one for each kind of field.
    for base in kind.__mro__:
        for package, module in _MODULES.items():
            if base.__module__ == package or base.__module__.startswith(f"{package}."):
                found: TypeAdapter | None = _load(module).adapter_for(kind)
                return found
    standard: TypeAdapter | None = _load(_STANDARD).adapter_for(kind)
    return standard


def adapter_named(name: str) -> TypeAdapter | None:
    """Return the adapter under a name; None if its library is not installed, or a newer version brought it.

    Args:
        name: as a message brings it.
    """
    module, _ = _NAMES.get(name.partition(LIBRARY_MARK)[0], (None, ""))
    if module is None:
        return None
    try:
        found: dict[str, TypeAdapter] = _load(module).BY_NAME
    except (ImportError, ImproperlyConfigured):  # the second of GeoDjango, for a library in C that is not found
        return None
    return found.get(name)


def missing(name: str) -> str:
    """Return what a process needs that cannot read a name."""
    library = _NAMES.get(name.partition(LIBRARY_MARK)[0], (None, "a newer signalbus"))[1]
    return f"this worker needs {library} to read it: install it here"


def _load(module: str) -> Any:
    return import_module(f"{__name__}.{module}")

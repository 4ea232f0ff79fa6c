"""Keep the types that travel under a name: those that a host registers, and those of known libraries.

`encoder` looks a value's type up, and `decoder` the name that a message brings. ``signalbus.codec.register`` adds the
types of a host; those of libraries are in `wire/library_types`, and are loaded when the first one is met.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from signalbus.exceptions import UnknownClass
from signalbus.wire.values.class_names import shown

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARY_MARK: Final = ":"  # in each name of a library's type, and in none of a host's


@dataclass(slots=True, kw_only=True)
class TypeAdapter:
    """How the values of one type travel.

    Args:
        name: the name under which they travel; messages that wait know it.
        encode: returns what travels of a value: values of a payload, at any depth.
        decode: makes an equal value of that.
        kind: the type; None for a library's, which may be several.
        place: where it was registered, as ``file:line``.
        is_proved: whether a value has been encoded and decoded to an equal one.
        by_fields: whether it travels field by field, without functions of the host.
    """

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    kind: type | None = None
    place: str = ""
    is_proved: bool = True
    by_fields: bool = False

    @property
    def is_of_library(self) -> bool:
        """Whether it comes with signalbus."""
        return self.kind is None


# Those of the host: by their types, and by their names, former ones too.
by_type: Final[dict[type, TypeAdapter]] = {}
by_name: Final[dict[str, TypeAdapter]] = {}


def add(adapter: TypeAdapter, former: tuple[str, ...] = ()) -> None:
    """Add a type of the host.

    Args:
        adapter: the type; the caller has checked that it and its name are free.
        former: names that it had before, under which messages may still come.
    """
    if adapter.kind is not None:
        by_type[adapter.kind] = adapter
    for name in (adapter.name, *former):
        by_name[name] = adapter


def forget(adapter: TypeAdapter) -> None:
    """Remove a type of the host, as one whose round trip failed."""
    if adapter.kind is not None:
        by_type.pop(adapter.kind, None)
    for name in [name for name, known in by_name.items() if known is adapter]:
        del by_name[name]


def adapter_named(name: str) -> TypeAdapter:
    """Return the adapter under a name that a message brings.

    Raises:
        UnknownClass: this process has none.
    """
    adapter = by_name.get(name)
    if adapter is not None:
        return adapter
    what = f'the type "{shown(name)}"'
    if LIBRARY_MARK not in name:
        raise UnknownClass(
            what,
            "the sender has registered it, and this worker has not: call signalbus.codec.register(…, "
            f'name="{shown(name)}") in a module that the worker imports too, or roll this worker out',
        )
    from signalbus.wire import library_types  # noqa: PLC0415 - its modules import this one

    found = library_types.adapter_named(name)
    if found is None:
        raise UnknownClass(what, f"{library_types.missing(name)}, or roll this worker out")
    return found


def list_of(parts: Any) -> list[Any]:
    """Return parts that must be a list; a hostile text may have a range there, which does not end.

    Raises:
        TypeError: they are none.
    """
    if type(parts) is not list:
        raise TypeError(type(parts).__name__)
    return parts

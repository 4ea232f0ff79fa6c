"""Make instances of a frozen dataclass, and UUIDs, in a part of the time that their constructors take.

`context` and `wire/message` use it for the objects that each delivery makes.
"""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from typing import Any, Final
from uuid import UUID, SafeUUID

_UUID_BYTES: Final = 16
_set_int: Any = vars(UUID)["int"].__set__  # of the slots: a UUID's own __setattr__ refuses everything
_set_is_safe: Any = vars(UUID)["is_safe"].__set__
_IS_SAFE: Final = SafeUUID.unknown  # to look up a member of an enumeration takes half as long as all else


def unfrozen_class(kind: type) -> Any:
    """Return a class with the fields of a frozen dataclass that has slots.

    An instance of it is filled at once, where a frozen one takes a call for each of its fields; then its ``__class__``
    is set to the frozen class.

    Args:
        kind: the frozen dataclass.
    """
    return make_dataclass("_Unfrozen", [each.name for each in fields(kind)], slots=True)


def uuid_from(text: str) -> UUID:
    """Return ``UUID(hex=text)``, for less than half of its time.

    Args:
        text: the 32 digits, without hyphens.

    Raises:
        ValueError: it is something else.
        TypeError: it is no text.
    """
    number = bytes.fromhex(text)
    if len(number) != _UUID_BYTES:
        raise ValueError(f"{text!r} is no UUID in hex")
    made = object.__new__(UUID)
    _set_int(made, int.from_bytes(number, "big"))
    _set_is_safe(made, _IS_SAFE)
    return made

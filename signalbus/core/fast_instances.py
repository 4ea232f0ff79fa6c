"""Make instances of a frozen dataclass in a fifth of the time: fill an instance of an unfrozen class, then convert it.

`context` and `wire/message` use it for the objects that each delivery makes.
"""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from typing import Any


def unfrozen_class(kind: type) -> Any:
    """Return a class with the fields of a frozen dataclass that has slots.

    An instance of it is filled at once, where a frozen one takes a call for each of its fields; then its ``__class__``
    is set to the frozen class.

    Args:
        kind: the frozen dataclass.
    """
    return make_dataclass("_Unfrozen", [each.name for each in fields(kind)], slots=True)

"""Find subclasses of `Signal` that pick receivers from Django's own lists, which do not hold receivers in workers.

The system check `checks.check_subclasses` calls it.
"""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED: Final = "_live_receivers"
LISTS: Final = frozenset({"receivers", "sender_receivers_cache"})
FORMS: Final = frozenset({"send", "send_robust", "asend", "asend_robust", "send_many", "send_later"})
OURS: Final = frozenset({"django", "signalbus"})


def methods_that_pick(kind: type) -> list[str]:
    """Return the methods of a signal's class that pick receivers themselves, and so bypass the bus.

    These are the ones that read or replace ``_live_receivers()``, and forms of ``send`` that read Django's lists and
    call no other form. A ``send`` that reads none of these is its author's affair: it may only point to another one.

    Args:
        kind: the class of a signal.
    """
    found = []
    for owner in kind.__mro__:
        if owner.__module__.partition(".")[0] in OURS:
            continue
        for name, function in vars(owner).items():
            if isinstance(function, FunctionType) and _picks(name, set(_names_in(function.__code__))):
                found.append(f"{name}()")
    return sorted(set(found))


def _picks(name: str, names: set[str]) -> bool:
    if name == ASKED or ASKED in names:
        return True
    is_form = name.startswith(("send", "asend"))
    return is_form and bool(names & LISTS) and not names & {"super", *FORMS}


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the names and attributes that a function uses, also in its comprehensions and inner functions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)

"""Compute the group of an error: the same for failures of one cause (decision 0046).

`receiving/settling` computes it when it records a failed attempt; pages and commands list failures by group.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from signalbus.core.own_code import is_own_code

if TYPE_CHECKING:
    from types import TracebackType

GROUP_BYTES = 6
_is_own_file = lru_cache(maxsize=4096)(is_own_code)


def group_of(error: BaseException, receiver: str) -> str:
    """Return the group of an error: a short hash of its type, of the place in the project's code, and of the receiver.

    The error's text is not part of it: an id in it would make each failure a group of its own. Neither is the line,
    which the next release moves; a function has one cause for a type of error more often than two.

    Args:
        error: what the receiver raised, or why its process is gone.
        receiver: the receiver's id.
    """
    kind = type(error)
    return _hash(f"{kind.__module__}.{kind.__qualname__}", _place(error.__traceback__), receiver)


def group_of_fate(fate: str, receiver: str) -> str:
    """Return the group of deliveries that wait or ended without an attempt, as those that are parked or were refused.

    Args:
        fate: what became of them, in a word.
        receiver: the receiver's id; empty if it is unknown.
    """
    return _hash(fate, "", receiver)


@lru_cache(maxsize=4096)
def _hash(*parts: str) -> str:
    return blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=GROUP_BYTES).hexdigest()


def _place(begin: TracebackType | None) -> str:
    """Return the last function of the project in a traceback; without one the first that is not of signalbus."""
    place = ""
    is_found = False
    while begin is not None:
        frame = begin.tb_frame
        code, begin = frame.f_code, begin.tb_next
        is_own = _is_own_file(code.co_filename)
        if not is_own and (is_found or place):
            continue
        module = str(frame.f_globals.get("__name__", ""))
        if is_own or module.partition(".")[0] != "signalbus":
            place, is_found = f"{module}.{code.co_qualname}", is_own or is_found
    return place

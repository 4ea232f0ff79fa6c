"""Match names by patterns, as ``receiver:crm.* queue:email``: by what is known of a delivery before it runs.

Called by the gate of pauses in a worker, and by the service that pauses.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Pattern = tuple[str, tuple[str, ...]]  # a key, and the alternatives for its value


@cache
def read_patterns(text: str) -> tuple[Pattern, ...]:
    """Read words of a filter; none of their values has a space.

    Args:
        text: words as ``key:value``, with commas between alternatives.
    """
    parts = [word.partition(":") for word in text.split()]
    return tuple((key, tuple(value.split(","))) for key, _, value in parts)


def match_all(patterns: tuple[Pattern, ...], names: Mapping[str, Collection[str]]) -> bool:
    """Return whether each pattern matches one of the names under its key.

    Args:
        patterns: the patterns.
        names: the names under each key.
    """
    return all(any(match(each, name) for each in values for name in names.get(key, ())) for key, values in patterns)


def match(pattern: str, name: str) -> bool:
    """Return whether a name is the pattern, which may have a star at its beginning or end for any text.

    Args:
        pattern: the pattern.
        name: the name.
    """
    inner = pattern.strip("*")
    if pattern.startswith("*"):
        return inner in name if pattern.endswith("*") else name.endswith(inner)
    return name.startswith(inner) if pattern.endswith("*") else name == inner

"""Compare two annotations: whether every value of a declared type is one that a receiver takes.

The system checks compare receivers with payloads, and the lock file compares a payload with its former self.
"""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from signalbus.contracts.annotations import plain_type
from signalbus.contracts.type_checks import check_of


def fits(declared: Any, wanted: Any) -> bool:
    """Return whether every value of a declared type is one of the wanted type; True in doubt.

    Args:
        declared: the annotation of the payload's field.
        wanted: the annotation of the receiver's parameter.
    """
    declared, wanted = plain_type(declared), plain_type(wanted)
    if declared in (Any, object) or wanted in (Any, object):  # the first says nothing of the values
        return True
    if get_origin(declared) in (Union, types.UnionType):
        return all(fits(each, wanted) for each in get_args(declared))
    if get_origin(declared) is Literal:
        check = check_of(wanted)
        return check is None or all(check(value) is None for value in get_args(declared))
    if get_origin(wanted) in (Union, types.UnionType):
        return any(fits(declared, each) for each in get_args(wanted))
    if get_origin(wanted) is Literal:
        return not isinstance(declared, type)
    return _fits_class(declared, wanted)


def _fits_class(declared: Any, wanted: Any) -> bool:
    inner, outer = get_origin(declared) or declared, get_origin(wanted) or wanted
    if not (isinstance(inner, type) and isinstance(outer, type)) or getattr(outer, "_is_protocol", False):
        return True
    if hasattr(outer, "__required_keys__"):  # a TypedDict, of which issubclass() knows nothing
        return inner is outer or (issubclass(inner, dict) and not hasattr(inner, "__required_keys__"))
    if not (issubclass(inner, outer) or (outer, inner) in {(float, int), (complex, int), (complex, float)}):
        return False
    given, taken = get_args(declared), get_args(wanted)
    if len(given) != len(taken) or any(each is Ellipsis or isinstance(each, list) for each in (*given, *taken)):
        return True
    return all(fits(each, other) for each, other in zip(given, taken, strict=True))

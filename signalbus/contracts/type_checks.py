"""Make functions that check values against the types of annotations.

`declared_payload` makes one for each field, once. Types that cannot be checked let every value pass (docs/contracts.md
names them).
"""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from django.db.models import Model
from django.utils.functional import Promise

from signalbus.contracts.annotations import (
    UNRESOLVED,
    annotation_text,
    annotations_of,
    is_unpacked,
    plain_type,
    qualifiers_of,
)
from signalbus.wire.values.references import Snapshot

_SHOWN: Final = 40  # characters of a value


class Fault(NamedTuple):
    """A value that is not of its type.

    Args:
        path: where it is in the value that was checked: empty for that value itself.
        expected: the type, in words.
        given: the value, in words.
    """

    path: str
    expected: str
    given: str


Check = Callable[[Any], Fault | None]

# int is accepted where float is expected, as type checkers do (PEP 484); it arrives as an int.
PROMOTED: Final[dict[type, tuple[type, ...]]] = {float: (float, int), complex: (complex, float, int)}
_CONTAINERS: Final = (list, tuple, set, frozenset, dict)


def check_of(annotation: Any) -> Check | None:
    """Return the function that checks a value against a type.

    Args:
        annotation: an evaluated annotation.

    Returns:
        The function, which returns the first fault that it finds, or None; None if every value passes.
    """
    kind = plain_type(annotation)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is UNRESOLVED or kind is Any or kind is object:
        return None
    if origin in (Union, types.UnionType):
        return _union(kind, arguments)
    if origin is Literal:
        return _literal(kind, arguments)
    if origin is type:
        return _subclass(kind, arguments)
    if isinstance(origin, type) and _has_no_instances(origin):
        return _of_class(origin)
    if isinstance(origin, type):
        return _container(kind, origin, arguments)
    if isinstance(kind, type):
        return _of_class(kind)
    return None


def exact_types(annotation: Any) -> frozenset[type]:
    """Return the types whose own objects (not those of subclasses) are valid without a further look.

    Args:
        annotation: an evaluated annotation.
    """
    kind = plain_type(annotation)
    if get_origin(kind) in (Union, types.UnionType):
        return frozenset().union(*(exact_types(each) for each in get_args(kind)))
    if isinstance(kind, type) and get_origin(kind) is None and not hasattr(kind, "__required_keys__"):
        return frozenset(PROMOTED.get(kind, (kind,)))
    return frozenset()


def given(value: object, *, shown: bool = False) -> str:
    """Return a value in words: its type, since a payload may be secret.

    Args:
        value: the value.
        shown: show the value, if it is a short plain one.
    """
    if value is None:
        return "None"
    if shown and type(value) in (str, int, bool) and len(repr(value)) <= _SHOWN:
        return repr(value)
    return f"a value of type {type(value).__qualname__}"


def _of_class(kind: type) -> Check | None:
    if hasattr(kind, "__required_keys__"):
        return _typeddict(kind)
    if _has_no_instances(kind):
        return None
    accepted: tuple[type, ...] = PROMOTED.get(kind, (kind,))
    if kind is str:
        accepted = (str, Promise)  # a lazy text arrives as a text
    expected = annotation_text(kind)
    if issubclass(kind, Model):

        def check_row(value: Any) -> Fault | None:
            row = value.instance if type(value) is Snapshot else value
            return None if isinstance(row, kind) else Fault("", expected, given(value))

        return check_row

    def check(value: Any) -> Fault | None:
        return None if isinstance(value, accepted) else Fault("", expected, given(value))

    return check


def _has_no_instances(kind: type) -> bool:
    """Return whether isinstance() and issubclass() raise an error for a class: a TypedDict, a protocol of checkers."""
    is_protocol = getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False)
    return hasattr(kind, "__required_keys__") or is_protocol


def _union(kind: Any, arguments: tuple[Any, ...]) -> Check | None:
    checks = [check_of(each) for each in arguments]
    if None in checks:
        return None
    expected = annotation_text(kind)

    def check(value: Any) -> Fault | None:
        faults = []
        for each in checks:
            fault = each(value)  # type: ignore[misc]  # none of them is None
            if fault is None:
                return None
            if fault.path:
                faults.append(fault)
        return faults[0] if len(faults) == 1 else Fault("", expected, given(value))

    return check


def _literal(kind: Any, arguments: tuple[Any, ...]) -> Check:
    allowed = {(type(each), each) for each in arguments}
    expected = annotation_text(kind)

    def check(value: Any) -> Fault | None:
        try:
            found = (type(value), value) in allowed
        except TypeError:  # not hashable
            found = False
        return None if found else Fault("", expected, given(value, shown=True))

    return check


def _subclass(kind: Any, arguments: tuple[Any, ...]) -> Check:
    base = plain_type(arguments[0]) if arguments else object
    expected = annotation_text(kind)
    is_checked = isinstance(base, type) and base is not Any and not _has_no_instances(base)
    wanted: type = base if is_checked else object

    def check(value: Any) -> Fault | None:
        return None if isinstance(value, type) and issubclass(value, wanted) else Fault("", expected, given(value))

    return check


def _container(kind: Any, origin: type, arguments: tuple[Any, ...]) -> Check:
    expected = annotation_text(kind)
    inner = _inner(kind, origin, arguments)

    def check(value: Any) -> Fault | None:
        if not isinstance(value, origin):
            return Fault("", expected, given(value))
        # Nothing else is looked into: a queryset would be evaluated, an iterator used up.
        return None if inner is None or not isinstance(value, _CONTAINERS) else inner(value)

    return check


def _inner(kind: Any, origin: type, arguments: tuple[Any, ...]) -> Check | None:
    """Return the check of what is in a container of a type."""
    if origin is tuple and arguments[-1:] != (...,):
        # typing.Tuple alone has no __args__, tuple[()] has none in them.
        has_any_length = not hasattr(kind, "__args__") or any(map(is_unpacked, arguments))
        return None if has_any_length else _of_places(arguments)
    if issubclass(origin, Mapping) and len(arguments) == 2:  # noqa: PLR2004 - key and value
        return _of_items(check_of(arguments[0]), check_of(arguments[1]))
    if issubclass(origin, collections.abc.Iterable) and arguments and not issubclass(origin, Model):
        element = check_of(arguments[0])
        return None if element is None else _of_elements(element)
    return None


def _of_elements(element: Check) -> Check:
    def check(values: Iterable[Any]) -> Fault | None:
        for index, value in enumerate(values):
            fault = element(value)
            if fault is not None:
                return _inside(f"[{index}]", fault)
        return None

    return check


def _of_items(key_check: Check | None, value_check: Check | None) -> Check | None:
    if key_check is None and value_check is None:
        return None

    def check(values: Any) -> Fault | None:
        if not isinstance(values, dict):
            return None
        for key, value in values.items():
            fault = key_check(key) if key_check is not None else None
            if fault is None and value_check is not None:
                fault = value_check(value)
            if fault is not None:
                return _inside(f"[{given(key, shown=True)}]", fault)
        return None

    return check


def _of_places(arguments: tuple[Any, ...]) -> Check:
    checks = [check_of(each) for each in arguments if each != ()]

    def check(values: Any) -> Fault | None:
        if len(values) != len(checks):
            return Fault("", f"a tuple of {len(checks)}", f"one of {len(values)}")
        for index, (each, value) in enumerate(zip(checks, values, strict=True)):
            fault = None if each is None else each(value)
            if fault is not None:
                return _inside(f"[{index}]", fault)
        return None

    return check


def _typeddict(kind: Any) -> Check:
    keys = annotations_of(kind)
    checks = {name: check_of(annotation) for name, annotation in keys.items()}
    required = {
        name
        for name, annotation in keys.items()
        if ("required" in qualifiers_of(annotation))
        or (name in kind.__required_keys__ and "not required" not in qualifiers_of(annotation))
    }
    expected = annotation_text(kind)

    def check(value: Any) -> Fault | None:
        if not isinstance(value, dict):
            return Fault("", expected, given(value))
        if not required <= value.keys() <= checks.keys():
            wrong = sorted(map(str, (required - value.keys()) or (value.keys() - checks.keys())))
            return Fault("", expected, f"a dict {'without' if wrong[0] in required else 'with'} {wrong[0]!r}")
        for name, held in value.items():
            each = checks[name]
            fault = None if each is None else each(held)
            if fault is not None:
                return _inside(f"[{name!r}]", fault)
        return None

    return check


def _inside(step: str, fault: Fault) -> Fault:
    return Fault(step + fault.path, fault.expected, fault.given)

"""Register a type of the host under a stable name, and prove that a value of it arrives as it left.

The host calls `register`; `wire/values` looks registered types up. Decision 0061.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.db.models import Model

from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.wire.codec import prove
from signalbus.wire.library_types.class_fields import functions_for
from signalbus.wire.values import registered_types
from signalbus.wire.values.encoder import CARRIED_TYPES
from signalbus.wire.values.registered_types import LIBRARY_MARK, TypeAdapter
from signalbus.wire.values.remedies import name_for, name_of_type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MISSING: Final = object()
# Examples given before the models were loaded; `prove_examples` is called when they are.
_examples: Final[list[tuple[TypeAdapter, object]]] = []


def register(  # noqa: PLR0913 - all but the type by name
    kind: type,
    *,
    name: str,
    encode: Callable[[Any], object] | None = None,
    decode: Callable[[Any], object] | None = None,
    example: object = _MISSING,
    was: Sequence[str] = (),
) -> None:
    """Let the values of a type travel, at any depth of a payload. Call it in a module that senders and workers import.

    Args:
        kind: the class; its subclasses are registered by themselves, or refused.
        name: the name under which its values travel. Messages that wait know it, so it must not change.
        encode: takes a value; returns what travels of it, any value of a payload. Without it, the class is a dataclass,
            an attrs class, a pydantic model, a msgspec struct or a named tuple, and travels field by field.
        decode: takes what `encode` returned; returns an equal value.
        example: a value that is encoded and decoded now, to prove that it arrives equal. Without it, the first value
            that is sent is the example.
        was: former names; ``module:qualname`` for a dataclass that travelled before it had a name.

    Raises:
        ConfigurationError: the type or the name is taken, or cannot be registered; or the example arrives as another.
    """
    _check_kind(kind)
    _check_names(kind, name, tuple(was), has_functions=encode is not None)
    if (encode is None) != (decode is None):
        raise ConfigurationError(f"{_call(kind, name)}: give encode= and decode=, or neither.")
    by_fields = encode is None
    if encode is None or decode is None:
        encode, decode = _by_fields(kind, name)
    frame = sys._getframe(1)  # noqa: SLF001 - documented (PEP 667)
    adapter = TypeAdapter(
        name=name,
        encode=encode,
        decode=decode,
        kind=kind,
        place=f"{frame.f_code.co_filename}:{frame.f_lineno}",
        is_proved=False,
        by_fields=by_fields,
    )
    if example is not _MISSING and type(example) is not kind:
        raise ConfigurationError(f"{_call(kind, name)}: example= is a {name_of_type(type(example))}.")
    registered_types.add(adapter, tuple(was))
    if example is _MISSING:
        return
    if apps.models_ready:
        _prove(adapter, example)
    else:
        _examples.append((adapter, example))


def prove_examples() -> None:
    """Prove the round trip of the examples that were given before the models were loaded.

    Raises:
        ConfigurationError: an example arrives as another value.
    """
    while _examples:
        _prove(*_examples.pop())


def _prove(adapter: TypeAdapter, example: object) -> None:
    try:
        prove(adapter, example)
    except PayloadError as error:
        registered_types.forget(adapter)
        raise ConfigurationError(f"{adapter.place}: {error}") from error


def _call(kind: Any, name: Any) -> str:
    shown = name_of_type(kind) if isinstance(kind, type) else repr(kind)
    return f"signalbus.codec.register({shown}, name={name!r})"


def _check_kind(kind: Any) -> None:
    if not isinstance(kind, type):
        raise ConfigurationError(f"signalbus.codec.register takes a class, not {kind!r}.")
    if issubclass(kind, Model):
        raise ConfigurationError(f"{name_of_type(kind)} is a model: its instances travel without being registered.")
    if issubclass(kind, type):
        raise ConfigurationError(f"{name_of_type(kind)} is a class of classes: send their names.")
    if kind in CARRIED_TYPES:
        raise ConfigurationError(f"{name_of_type(kind)} travels without being registered.")
    known = registered_types.by_type.get(kind)
    if known is not None:
        raise ConfigurationError(
            f'{name_of_type(kind)} is registered already, as "{known.name}" in {known.place}: register it once, in a '
            "module that is imported under one name."
        )


def _check_names(kind: type, name: Any, was: tuple[str, ...], *, has_functions: bool) -> None:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{_call(kind, name)}: a name has 1 to 100 letters, digits, dots, dashes or underscores, as "
            f'name="{name_for(kind)}".'
        )
    if name in {f"{kind.__module__}.{kind.__qualname__}", f"{kind.__module__}.{kind.__name__}"}:
        raise ConfigurationError(
            f"{_call(kind, name)}: the place of a class changes when it is moved, and messages that wait know its "
            f'name: give another one, as name="{name_for(kind)}".'
        )
    for each in (name, *was):
        known = registered_types.by_name.get(each)
        if known is not None:
            raise ConfigurationError(f'{_call(kind, name)}: the name "{each}" is taken, in {known.place}.')
        if LIBRARY_MARK in each and has_functions:
            raise ConfigurationError(
                f"{_call(kind, name)}: was={each!r} is the place of a dataclass, whose fields decode= does not know: "
                "leave encode= and decode= out."
            )


def _by_fields(kind: type, name: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    try:
        found = functions_for(kind, name)
    except PayloadError as error:
        raise ConfigurationError(f"{_call(kind, name)}: {error}") from error
    if found is None:
        raise ConfigurationError(
            f"{_call(kind, name)}: say with encode= and decode= what travels of a value. Only dataclasses, attrs "
            "classes, pydantic models, msgspec structs and named tuples travel field by field without."
        )
    return found

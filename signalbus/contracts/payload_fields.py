"""Read the fields of a payload class: a dataclass, an attrs class, a TypedDict, a pydantic model or a msgspec struct.

`declared_payload` calls `fields_of` once for each class. Nothing is imported here but what the class itself comes from.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from signalbus.contracts.annotations import UNRESOLVED, annotations_of, qualifiers_of
from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Kind = Literal["dataclass", "attrs", "typeddict", "pydantic", "msgspec"]

RESERVED: Final = frozenset({"signal", "sender"})  # what a receiver gets beside the payload


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadField:
    """One key of a payload.

    Args:
        name: the keyword that `send` takes.
        attribute: the attribute of an object of the class.
        annotation: its type; `UNRESOLVED` if the annotation cannot be evaluated at run time.
        required: whether `send` must give it.
        default: returns its default; None if it has none, and is left out if it is not given.
        is_made: whether a function of the class makes the default, for each payload another one.
    """

    name: str
    attribute: str
    annotation: Any
    required: bool
    default: Callable[[], Any] | None = None
    is_made: bool = False


def kind_of(payload: object) -> Kind | None:
    """Return which kind of payload class an object is; None: none of them."""
    if not isinstance(payload, type):
        return None
    if hasattr(payload, "__pydantic_core_schema__") and hasattr(payload, "model_fields"):
        return "pydantic"
    if hasattr(payload, "__attrs_attrs__"):
        return "attrs"
    if hasattr(payload, "__struct_fields__"):
        return "msgspec"
    if dataclasses.is_dataclass(payload):
        return "dataclass"
    if issubclass(payload, dict) and hasattr(payload, "__required_keys__"):
        return "typeddict"
    return None


def fields_of(payload: type) -> tuple[PayloadField, ...]:
    """Return the fields of a payload class, in their order.

    Args:
        payload: the class.

    Raises:
        ConfigurationError: a field that no keyword of `send` can fill, or whose name is reserved.
    """
    kind = kind_of(payload)
    if kind is None:
        raise ConfigurationError(
            f"payload={payload!r}: give a dataclass, an attrs class, a TypedDict, a pydantic model or a msgspec.Struct."
        )
    fields = tuple(_READERS[kind](payload))
    for field in fields:
        if field.name == "self":
            raise ConfigurationError(
                f"{payload.__qualname__}.self: send() is a method, and has a self of its own; call the field something "
                "else."
            )
        if field.name in RESERVED:
            raise ConfigurationError(
                f"{payload.__qualname__}.{field.name}: receivers get a {field.name} beside the payload; call the field "
                "something else."
            )
    return fields


def is_class_with_rules(payload: type) -> bool:
    """Return whether objects of a class must be made to know whether its values are valid.

    Args:
        payload: a payload class: with ``__post_init__``, with validators or converters of attrs, or of pydantic.
    """
    kind = kind_of(payload)
    if kind == "pydantic":
        return True
    if any(hasattr(payload, name) for name in ("__post_init__", "__attrs_post_init__", "__pydantic_validator__")):
        return True
    if kind != "attrs":
        return False
    attributes: Any = getattr(payload, "__attrs_attrs__", ())
    return any(each.validator is not None or each.converter is not None for each in attributes)


def _of_dataclass(payload: Any) -> Iterator[PayloadField]:
    types = annotations_of(payload)
    taken = [each for each in dataclasses.fields(payload) if each.init]
    more = inspect.signature(payload).parameters.keys() - {each.name for each in taken}
    if more:
        raise ConfigurationError(
            f"{payload.__qualname__}.{min(more)} is an argument of its __init__ and no field, as an InitVar: make it "
            "a field."
        )
    for each in taken:
        default: Callable[[], Any] | None = None
        if each.default is not dataclasses.MISSING:
            default = _constant(each.default)
        elif each.default_factory is not dataclasses.MISSING:
            default = each.default_factory
        yield _field(each.name, types, default, is_made=each.default_factory is not dataclasses.MISSING)


def _of_attrs(payload: Any) -> Iterator[PayloadField]:
    types = annotations_of(payload)
    nothing = sys.modules["attr"].NOTHING
    for each in payload.__attrs_attrs__:
        if not each.init:
            continue
        default: Callable[[], Any] | None = None
        if getattr(each.default, "takes_self", False):
            raise ConfigurationError(
                f"{payload.__qualname__}.{each.name} has a default that takes the object: a payload has none. Give it "
                "a factory without takes_self."
            )
        is_made = hasattr(each.default, "takes_self")
        if is_made:
            default = each.default.factory
        elif each.default is not nothing:
            default = _constant(each.default)
        yield _field(each.name, types, default, each.alias or each.name.lstrip("_"), is_made=is_made)


def _of_typeddict(payload: Any) -> Iterator[PayloadField]:
    types = annotations_of(payload)
    for name, annotation in types.items():
        # Python takes NotRequired in a module with `from __future__ import annotations` for a part of the text.
        said = qualifiers_of(annotation)
        required = name in payload.__required_keys__ if not said else "required" in said
        yield PayloadField(name=name, attribute=name, annotation=annotation, required=required)


def _of_pydantic(payload: Any) -> Iterator[PayloadField]:
    if getattr(payload, "__pydantic_root_model__", False):
        raise ConfigurationError(
            f"{payload.__qualname__} is a RootModel, which has no keys: declare a model with a field for its value."
        )
    for name, info in payload.model_fields.items():
        alias = info.validation_alias or info.alias
        if alias not in (None, name):
            raise ConfigurationError(
                f"{payload.__qualname__}.{name} has the alias {alias!r}: send() and receivers have one name for a key. "
                "Name the field as the key."
            )
        if getattr(info, "default_factory_takes_validated_data", False):
            raise ConfigurationError(
                f"{payload.__qualname__}.{name} has a default_factory that takes other fields: a worker fills in each "
                "default by itself. Give it a factory without arguments."
            )
        yield PayloadField(
            name=name,
            attribute=name,
            annotation=info.annotation,
            required=info.is_required(),
            default=None if info.is_required() else _default_of_pydantic(info),
            is_made=info.default_factory is not None,
        )


def _of_msgspec(payload: Any) -> Iterator[PayloadField]:
    types = annotations_of(payload)
    missing = sys.modules["msgspec"].NODEFAULT
    names = payload.__struct_fields__
    defaults = payload.__struct_defaults__
    given = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    for name in names:
        value = given.get(name, missing)
        if value is missing:
            yield _field(name, types, None)
        else:
            factory = getattr(value, "factory", None)
            yield _field(name, types, factory or _constant(value), is_made=factory is not None)


def _field(
    name: str, types: dict[str, Any], default: Callable[[], Any] | None, key: str = "", *, is_made: bool = False
) -> PayloadField:
    return PayloadField(
        name=key or name,
        attribute=name,
        annotation=types.get(name, UNRESOLVED),
        required=default is None,
        default=default,
        is_made=is_made,
    )


def _constant(value: object) -> Callable[[], Any]:
    """Return what makes the default of a field: of an object that attrs would share, each message gets a copy."""
    return partial(copy, value) if isinstance(value, (list, dict, set)) else lambda: value


def _default_of_pydantic(info: Any) -> Callable[[], Any]:
    return lambda: info.get_default(call_default_factory=True)


_READERS: Final[dict[str, Callable[[Any], Iterator[PayloadField]]]] = {
    "dataclass": _of_dataclass,
    "attrs": _of_attrs,
    "typeddict": _of_typeddict,
    "pydantic": _of_pydantic,
    "msgspec": _of_msgspec,
}

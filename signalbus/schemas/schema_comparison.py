"""Tell whether each value of an older schema is valid in a newer one; and which part is not.

The lock file compares schemas of `json_schema` with each other; the deploy gate compares shapes of `payload_shapes`
with them. What `send` accepts for a type, the deploy gate accepts as well: it must refuse no message that a worker can
run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.db.models import Model

from signalbus.contracts.type_checks import PROMOTED
from signalbus.exceptions import UnknownClass
from signalbus.schemas.json_schema import ANY_ARRAY, JSON_TYPES, PLAIN_SCHEMAS
from signalbus.wire.values.class_names import resolve_class

if TYPE_CHECKING:
    from signalbus.schemas.json_schema import Schema

# What must be the same in two schemas of one type.
_KIND: Final = ("type", "x-python", "x-model")
_CLASS: Final = "class "  # begins `x-python` of a class of objects, before the label of a model
_CONTAINERS: Final[dict[Any, type]] = {
    ("array", ""): list,
    ("array", "tuple"): tuple,
    ("array", "set"): set,
    ("array", "frozenset"): frozenset,
    ("object", ""): dict,
}


def first_misfit(older: Schema, newer: Schema, path: str = "") -> str | None:
    """Return the path of the first part of an older schema whose values do not fit a newer one; None if all fit.

    Args:
        older: a schema of `schema_of`, or of `payload_shapes`.
        newer: another one.
        path: where they are.
    """
    if not {*newer} - {"default", "description", "title"} or newer == older or older.get("x-shape") == "any":
        return None
    if "anyOf" in older:
        return next((found for each in older["anyOf"] if (found := first_misfit(each, newer, path)) is not None), None)
    if "anyOf" in newer:
        return None if any(first_misfit(older, each, path) is None for each in newer["anyOf"]) else path
    if "enum" in newer or ("enum" in older and "x-shape" not in older):
        return None if _enum_fits(older, newer) else path
    if not _kind_fits(older, newer):
        return path
    if "prefixItems" in older and "items" in newer:
        places = [(f"{path}[{index}]", each, newer["items"]) for index, each in enumerate(older["prefixItems"])]
        return next((found for at, one, two in places if (found := first_misfit(one, two, at)) is not None), None)
    return _first_misfit_inside(older, newer, path)


def _enum_fits(older: Schema, newer: Schema) -> bool:
    if "enum" not in older:  # the shape of a payload does not tell its values
        types = {JSON_TYPES.get(type(each)) for each in newer["enum"]}
        return "x-shape" in older and "x-python" not in newer and older.get("type") in types
    if "enum" in newer:
        is_of_class = "x-shape" not in older or "x-python" in newer  # a literal names the members of an enum alone
        return (not is_of_class or older.get("x-python") == newer.get("x-python")) and all(
            any(type(value) is type(other) and value == other for other in newer["enum"]) for value in older["enum"]
        )
    return "x-python" not in older and all(JSON_TYPES.get(type(each)) == newer.get("type") for each in older["enum"])


def _kind_fits(older: Schema, newer: Schema) -> bool:
    if all(older.get(key) == newer.get(key) for key in _KIND):
        return True
    if (older.get("type"), newer.get("type")) == ("integer", "number"):
        return True
    if older.get("type") == "array" and newer.get("x-python") == ANY_ARRAY:
        return True
    return "x-shape" in older and _is_accepted(older, newer)


def _is_accepted(shape: Schema, schema: Schema) -> bool:
    """Return whether a check of `send` accepts what a shape describes, as an object of a subclass."""
    if schema.get("x-python") == "class":
        return bool(shape["x-shape"] == "class")
    given, wanted = _class_of(shape), _class_of(schema)
    if given is None or wanted is None or (shape["x-shape"] == "class") != _is_of_classes(schema):
        return False
    if getattr(wanted, "_is_protocol", False):
        return True
    return issubclass(given, PROMOTED.get(wanted, (wanted,)))


def _is_of_classes(schema: Schema) -> bool:
    return str(schema.get("x-python", "")).startswith(_CLASS)


def _class_of(schema: Schema) -> type | None:
    """Return the class whose objects a schema describes, or the model that a class in a payload must be."""
    for kind, plain in PLAIN_SCHEMAS.items():
        if all(schema.get(key) == plain.get(key) for key in _KIND):
            return kind  # type: ignore[no-any-return]  # each key is a class
    name = str(schema.get("x-python", ""))
    if _is_of_classes(schema):
        return model_of(name.removeprefix(_CLASS))
    if "x-model" in schema:
        return model_of(schema["x-model"])
    if ":" in name:
        return _class_named(name)
    return _CONTAINERS.get((schema.get("type"), name))


def model_of(label: str) -> type | None:
    """Return the model of a label, also an abstract one; None if no installed app has it.

    Args:
        label: as `x-model` has it.
    """
    bases = (base for model in apps.get_models() for base in model.__mro__ if issubclass(base, Model))
    return next((base for base in bases if base is not Model and base._meta.label == label), None)  # noqa: SLF001


def _class_named(name: str) -> type | None:
    try:
        found = resolve_class(name)
    except UnknownClass:  # of a module outside of the apps: then this process has imported it, or nothing is known
        module, _, path = name.partition(":")
        found = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, part, None)
    return found if isinstance(found, type) else None


def _first_misfit_inside(older: Schema, newer: Schema, path: str) -> str | None:
    if "prefixItems" in newer and len(older.get("prefixItems", ())) != len(newer["prefixItems"]):
        return path
    places = enumerate(zip(older.get("prefixItems", ()), newer.get("prefixItems", ()), strict=False))
    pairs = [(f"{path}[{index}]", before, after) for index, (before, after) in places]
    if "items" in newer:
        pairs.append((f"{path}[]", older.get("items", {}), newer["items"]))
    before, after = older.get("properties", {}), newer.get("properties", {})
    for name in newer.get("required", ()):
        if name not in older.get("required", ()):
            return f"{path}.{name}".lstrip(".")
    pairs += [(f"{path}.{name}".lstrip("."), before[name], after[name]) for name in before if name in after]
    if isinstance(newer.get("additionalProperties"), dict):
        others = [each for name, each in before.items() if name not in after]
        if isinstance(older.get("additionalProperties"), dict):
            others.append(older["additionalProperties"])
        pairs += [(f"{path}{{}}", each, newer["additionalProperties"]) for each in others]
    return next((found for at, one, two in pairs if (found := first_misfit(one, two, at)) is not None), None)

"""Find the part of a lock file or an export that signalbus would not have written, as after an edit by hand.

`lock_file` and `deploy_gate` ask it when they read a file. A form is a type (or several), a list with the form of its
elements, a dict with the form of each key (``?`` after a key that may be absent), `Values` with the form of each value
of a dict, or a function that returns a form.
"""

from __future__ import annotations

from types import FunctionType, NoneType
from typing import Any, Final, NamedTuple


class Values(NamedTuple):
    """The form of a dict with any keys.

    Args:
        form: the form of each value.
    """

    form: Any


def _schema() -> Any:
    return SCHEMA


SCHEMA: Final[dict[str, Any]] = {
    "anyOf?": [_schema],
    "prefixItems?": [_schema],
    "items?": _schema,
    "properties?": Values(_schema),
    "additionalProperties?": (dict, bool),
    "required?": [str],
    "enum?": list,
}
LOCK: Final[dict[str, Any]] = {
    "signals": Values(
        {
            "durable": bool,
            "open": bool,
            "ordered": bool,
            "was": [str],
            "receivers": Values({"sender": (str, list, NoneType), "queue": (str, NoneType), "was": [str]}),
            "version?": int,
            "versions?": Values({"payload": {**SCHEMA, "properties": Values(_schema)}}),
        }
    )
}
EXPORT: Final[dict[str, Any]] = {"exported_at": str, "groups": [{"receiver": str, "example": str, "due": Values(int)}]}
READ_GROUP: Final[dict[str, Any]] = {  # of an export: of messages whose text was read
    "signal": str,
    "sender": (str, NoneType),
    "payload_version": int,
    "carried": [str],
    "names": [[str]],
    "shape": SCHEMA,
}


def misshapen_part(value: object, form: Any, path: str = "") -> str | None:
    """Return the path of the first part of a value that has another form; None if all is as it should be.

    Args:
        value: what a file holds, read as JSON.
        form: its form.
        path: where it is in the file.
    """
    if isinstance(form, FunctionType):
        form = form()
    kind: Any = dict if isinstance(form, Values) else type(form) if isinstance(form, (dict, list)) else form
    if not isinstance(value, kind):
        return path
    parts = (misshapen_part(part, inner, f"{path}/{name}") for name, part, inner in _parts(value, form))
    return next((where for where in parts if where is not None), None)


def _parts(value: Any, form: Any) -> list[tuple[str, Any, Any]]:
    """Return the parts of a value, each with its name and its form."""
    if isinstance(form, Values):
        return [(name, part, form.form) for name, part in value.items()]
    if isinstance(form, list):
        return [(str(index), part, form[0]) for index, part in enumerate(value)]
    if isinstance(form, dict):
        named = [(key.removesuffix("?"), key.endswith("?"), inner) for key, inner in form.items()]
        # A key that is absent and may not be gets `...`, which has none of the types.
        return [(name, value.get(name, ...), inner) for name, may_lack, inner in named if name in value or not may_lack]
    return []

"""Export what the signals of a project carry: as AsyncAPI 3, and as JSON Schema.

Docstrings of payloads, models, receivers and senders become descriptions. Unchanged code exports the same text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from signalbus.registration.registry import registry
from signalbus.schemas.catalogue import catalogue
from signalbus.schemas.json_schema import docstring_of, schema_of_payload
from signalbus.schemas.schema_comparison import model_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signalbus.schemas.catalogue import CataloguedSignal

ASYNCAPI: Final = "3.0.0"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NOT_IN_KEYS: Final = re.compile(r"[^A-Za-z0-9_-]+")


def json_schemas() -> dict[str, Any]:
    """Return a JSON Schema with a definition for each declared signal, by its name.

    Raises:
        ConfigurationError: a class that cannot be a payload.
    """
    return {"$schema": DIALECT, "$defs": {each.name: _payload(each) for each in catalogue() if each.payload}}


def asyncapi(title: str, version: str) -> dict[str, Any]:
    """Return an AsyncAPI document of the signals in this process.

    Args:
        title: the title of the application.
        version: its version.

    Raises:
        ConfigurationError: a class that cannot be a payload.
    """
    found = catalogue()
    keys = _keys([each.name for each in found])
    operations: dict[str, Any] = {}
    for each in found:
        operations |= _operations(each, keys[each.name])
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": {keys[each.name]: _channel(each, keys[each.name]) for each in found},
        "operations": dict(sorted(operations.items())),
        "components": {"messages": {keys[each.name]: _message(each) for each in found}},
    }


def _keys(names: list[str]) -> Mapping[str, str]:
    """Return a key of a document for each name; a name may have characters that a key has not."""
    keys: dict[str, str] = {}
    for name in names:
        key = _NOT_IN_KEYS.sub("_", name)
        while key in keys.values():
            key += "_"
        keys[name] = key
    return keys


def _channel(signal: CataloguedSignal, key: str) -> dict[str, Any]:
    return {
        "address": signal.name,
        "description": signal.about if signal.payload else "It declares no payload, and carries any.",
        "messages": {key: {"$ref": f"#/components/messages/{key}"}},
    }


def _message(signal: CataloguedSignal) -> dict[str, Any]:
    message: dict[str, Any] = {"name": signal.name, "title": signal.name}
    if signal.payload is None:
        return message
    return {
        **message,
        "summary": signal.about,
        "payload": _as_draft_07(_payload(signal)),
        "x-version": signal.payload.version,
        "x-upcasts": list(signal.payload.upcasts),
    }


def _payload(signal: CataloguedSignal) -> dict[str, Any]:
    """Return the schema of a declared payload, with the docstrings of its class and of the models in it."""
    contract = registry.signal(signal.name).contract  # type: ignore[union-attr]  # it is in the catalogue
    schema = schema_of_payload(contract.payload)
    _describe(schema)
    described = docstring_of(contract.payload)
    named = {"title": contract.payload.__qualname__, **({"description": described} if described else {})}
    return {**named, **schema}


def _describe(schema: Any) -> None:
    """Add the docstrings of models to a schema."""
    if isinstance(schema, dict):
        label = schema.get("x-model")
        if isinstance(label, str) and (about := docstring_of(model_of(label))):
            schema["description"] = about
        for each in schema.values():
            _describe(each)
    elif isinstance(schema, list):
        for each in schema:
            _describe(each)


def _as_draft_07(schema: Any) -> Any:
    """Return a schema as AsyncAPI's own dialect has it, which knows no ``prefixItems``."""
    if isinstance(schema, list):
        return [_as_draft_07(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {"items" if key == "prefixItems" else key: _as_draft_07(each) for key, each in schema.items()}


def _operations(signal: CataloguedSignal, key: str) -> dict[str, Any]:
    channel = {"$ref": f"#/channels/{key}"}
    found: dict[str, Any] = {
        f"send-{key}": {
            "action": "send",
            "channel": channel,
            "summary": f"Send {signal.name}",
            "x-senders": [{"place": each.place, "about": each.about} for each in signal.senders],
        }
    }
    ids = _keys([each.id for each in signal.receivers])
    for each in signal.receivers:
        found[f"receive-{key}-{ids[each.id]}"] = {
            "action": "receive",
            "channel": channel,
            "summary": each.about or f"Receive {signal.name}",
            "x-receiver": each.id,
            "x-place": each.place,
            "x-sender": each.sender,
        }
    return found

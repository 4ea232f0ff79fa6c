"""Compare receivers with the payload that their signal declares: the keys that they require, and their types.

Receivers are looked at as `inspect` sees them; nothing is called. A parameter without an annotation takes any value.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from signalbus.contracts.annotations import annotation_text, annotations_of
from signalbus.contracts.assignability import fits
from signalbus.core.code_places import place_in_code
from signalbus.exceptions import ConfigurationError
from signalbus.registration.registry import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from signalbus.contracts.declared_payload import DeclaredPayload


class Findings(NamedTuple):
    """What is wrong with the declared signals of this process; each a sentence, sorted.

    Args:
        payloads: classes that cannot be payloads, and options that name keys which a payload does not have.
        receivers: receivers that a payload would not fit.
        keys: keys with a default that receivers name and never get.
        unchecked: fields whose values cannot be checked.
        upcasts: versions from which no upcast leads on.
    """

    payloads: list[str]
    receivers: list[str]
    keys: list[str]
    unchecked: list[str]
    upcasts: list[str]


def examine_contracts() -> Findings:
    """Compare the declared signals of this process with their receivers, and with their versions."""
    found = Findings([], [], [], [], [])
    for signal in registry:
        contract = signal.contract
        if contract is None or signal.is_leftover:
            continue
        name = signal.known_name() or signal.place
        try:
            declared: DeclaredPayload = contract.declared
        except ConfigurationError as error:
            found.payloads.append(f"{name}: {error}")
            continue
        found.payloads.extend(_missing_keys(signal, declared, name))
        for function in signal.connected_functions():
            _compare(found, function, declared, name)
        found.unchecked.extend(
            f"{field.name} of {name} is not checked: the annotation in {_place_of(declared)} cannot be evaluated"
            for field in declared.unchecked()
        )
        missing = ", ".join(map(str, contract.missing_upcasts()))
        if missing:
            found.upcasts.append(f"{name} has version {contract.version}, and no upcast from version {missing}")
    return Findings(*(sorted(set(texts)) for texts in found))


def _missing_keys(signal: Any, declared: DeclaredPayload, name: str) -> Iterator[str]:
    """Yield the options of a signal and its receivers that name a key which the payload does not have.

    Without its key, a message would silently be unordered, or be sent beside an equal one.
    """
    named = [("ordered_by", signal.ordered_by)]
    if signal.deduplication is not None:
        named.append(("unique", signal.deduplication.unique))
    named += [
        (f"select_related of {entry.id}", key) for entry in signal.entries() for key in entry.policy.select_related
    ]
    keys = {field.name for field in declared.fields}
    for option, key in named:
        if isinstance(key, str) and key not in keys and not declared.takes_more:
            yield f"{name}: {option} names the key {key!r}, which {_place_of(declared)} does not have"


def _place_of(declared: DeclaredPayload) -> str:
    """Return where a payload is declared; asked for findings only, because the source is read for it."""
    return f"its payload {declared.place} ({place_in_code(declared.payload)})"


def _compare(found: Findings, function: Callable[..., Any], declared: DeclaredPayload, signal: str) -> None:
    try:
        parameters = inspect.signature(function).parameters
        types = annotations_of(function if hasattr(function, "__annotations__") else type(function).__call__)
    except (TypeError, ValueError):  # a receiver of C code shows no parameters
        return
    receiver = f"{getattr(function, '__qualname__', type(function).__qualname__)} ({place_in_code(function)})"
    fields = {field.name: field for field in declared.fields}
    for parameter in _payload_parameters(function, parameters):
        field = fields.get(parameter.name)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            found.receivers.append(
                f"{receiver} takes {parameter.name} by position only, and receivers of {signal} get keywords"
            )
        elif field is None:
            if declared.takes_more:
                continue
            where = f"{_place_of(declared)} has {', '.join(fields) or 'no keys'}"
            if parameter.default is parameter.empty:
                found.receivers.append(f"{receiver} requires {parameter.name}, which {signal} does not carry: {where}")
            else:
                found.keys.append(f"{receiver} takes {parameter.name}, which {signal} never carries: {where}")
        elif parameter.name in types and not fits(field.annotation, types[parameter.name]):
            found.receivers.append(
                f"{receiver} takes {parameter.name} as {annotation_text(types[parameter.name])}, and {signal} carries "
                f"{annotation_text(field.annotation)}: {_place_of(declared)}"
            )
        elif not field.required and field.default is None and parameter.default is parameter.empty:
            found.receivers.append(
                f"{receiver} requires {parameter.name}, which a sender of {signal} may leave out: {_place_of(declared)}"
            )


def required_keys(function: Callable[..., Any]) -> list[str]:
    """Return the keys that a receiver requires of every payload.

    Args:
        function: the receiver.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    return [each.name for each in _payload_parameters(function, parameters) if each.default is each.empty]


def _payload_parameters(function: Any, parameters: Mapping[str, inspect.Parameter]) -> Iterator[inspect.Parameter]:
    filled = {"sender", "signal", *(function.keywords if isinstance(function, partial) else ())}
    for parameter in parameters.values():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and parameter.name not in filled:
            yield parameter

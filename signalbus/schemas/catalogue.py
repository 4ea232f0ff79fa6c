"""List the signals of this process with their payloads, versions, and the places of their senders and receivers.

Senders are found in the sources of the project (`checks/unsent` reads them); the rest is in the registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from signalbus.checks.unsent import places_of_sends
from signalbus.contracts.annotations import annotation_text
from signalbus.core.code_places import place_in_code
from signalbus.registration.registry import registry
from signalbus.schemas.json_schema import docstring_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from signalbus.checks.unsent import SendPlace
    from signalbus.contracts.contract import Contract


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadSummary:
    """What a signal is declared to carry.

    Args:
        name: the class, with its module.
        place: the file and line of the class.
        version: its version.
        keys: each key with its type, in words.
        upcasts: the versions that are brought up.
    """

    name: str
    place: str
    version: int
    keys: tuple[str, ...]
    upcasts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverPlace:
    """A receiver in a worker.

    Args:
        id: its id.
        place: the file and line of its function.
        sender: the sender that it listens to; None for any.
        about: the first line of its docstring.
    """

    id: str
    place: str
    sender: str | None
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CataloguedSignal:
    """A signal with all places that concern it.

    Args:
        name: its name.
        place: where it is declared.
        payload: what it carries; None if it declares nothing.
        about: the docstring of its payload; nothing if it has none.
        senders: the calls that send it, as far as the sources tell.
        receivers: its receivers in workers.
        inline: the files and lines of its receivers in the sender's process.
    """

    name: str
    place: str
    payload: PayloadSummary | None
    about: str
    senders: tuple[SendPlace, ...]
    receivers: tuple[ReceiverPlace, ...]
    inline: tuple[str, ...]


def catalogue(names: Collection[str] = ()) -> list[CataloguedSignal]:
    """Return the signals of this process, sorted by name.

    Args:
        names: these only; all that have a name if there is none.

    Raises:
        ConfigurationError: a class that cannot be a payload.
    """
    found = {name: signal for signal in registry if (name := signal.known_name()) is not None}
    if names:
        found = {name: signal for name, signal in found.items() if name in names}
    sends = places_of_sends(list(found.values()))
    return [_catalogued(name, signal, sends.get(id(signal), ())) for name, signal in sorted(found.items())]


def _catalogued(name: str, signal: Any, senders: Collection[SendPlace]) -> CataloguedSignal:
    entries = signal.entries()
    functions = {entry.id: entry.function() for entry in entries}
    return CataloguedSignal(
        name=name,
        place=signal.place,
        payload=None if signal.contract is None else _summary(signal.contract),
        about="" if signal.contract is None else about(signal.contract.payload),
        senders=tuple(sorted(senders)),
        receivers=tuple(
            ReceiverPlace(
                id=entry.id,
                place=entry.place if functions[entry.id] is None else place_in_code(functions[entry.id]),
                sender=entry.sender,
                about=about(functions[entry.id]),
            )
            for entry in entries
        ),
        inline=tuple(
            sorted(
                place_in_code(function)
                for function in signal.connected_functions()
                if not any(function == known for known in functions.values())
            )
        ),
    )


def _summary(contract: Contract) -> PayloadSummary:
    declared = contract.declared
    keys = (
        f"{field.name}: {annotation_text(field.annotation)}{'' if field.required else ' = …'}"
        for field in declared.fields
    )
    return PayloadSummary(
        name=declared.place,
        place=place_in_code(declared.payload),
        version=contract.version,
        keys=tuple(keys),
        upcasts=tuple(sorted(contract.upcasts)),
    )


def about(described: object) -> str:
    """Return the first line of a docstring that a project wrote; nothing if there is none."""
    return docstring_of(described).partition("\n")[0]

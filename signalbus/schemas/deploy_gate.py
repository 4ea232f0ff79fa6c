"""Judge which exported deliveries this code could not run, and why; without the database that they wait in.

``manage.py signalbus check --in-flight`` runs it with the new code, before it is deployed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from signalbus.carriers import carrying
from signalbus.checks.declared_receivers import required_keys
from signalbus.contracts.contract import reject_unknown_version
from signalbus.exceptions import ConfigurationError, SignalBusError, UnknownClass, UnknownPayloadVersion
from signalbus.registration.registry import registry
from signalbus.schemas.file_forms import EXPORT, READ_GROUP, misshapen_part
from signalbus.schemas.in_flight import FORMAT
from signalbus.schemas.json_schema import schema_of_payload
from signalbus.schemas.samples import fault_of_upcasts
from signalbus.schemas.schema_comparison import first_misfit
from signalbus.wire.message import is_known_version
from signalbus.wire.values import registered_types
from signalbus.wire.values.class_names import resolve_class
from signalbus.wire.values.references import model_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from signalbus.contracts.contract import Contract


@dataclass(frozen=True, slots=True)
class Stranded:
    """Deliveries that this code could not run.

    Args:
        signal: their signal; empty if their text cannot be read.
        receiver: their receiver; empty for all of a message.
        reasons: why.
        soon: how many are due before the horizon.
        later: how many are due after it.
        first: the day on which the first is due.
        last: the day on which the last is due.
        example: the id of one of them.
    """

    signal: str
    receiver: str
    reasons: tuple[str, ...]
    soon: int
    later: int
    first: date
    last: date
    example: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate found.

    Args:
        deliveries: how many were judged.
        stranded: those that this code could not run, in groups.
        unread: how many texts nobody could read, and which were not judged.
    """

    deliveries: int
    stranded: tuple[Stranded, ...]
    unread: int

    @property
    def soon(self) -> int:
        """How many could not run, and are due before the horizon."""
        return sum(each.soon for each in self.stranded)


def read_export(path: Path) -> dict[str, Any]:
    """Read an exported file.

    Raises:
        ConfigurationError: it is none, of another format, or damaged.
    """
    try:
        exported = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not isinstance(exported, dict) or exported.get("format") != FORMAT:
        raise ConfigurationError(f"{path} was not written by `manage.py signalbus in-flight --export` of this version.")
    damaged = misshapen_part(exported, EXPORT) or _misshapen_group(exported)
    if damaged is not None:
        raise ConfigurationError(f"{path}: {damaged} is not as signalbus wrote it: export it again.")
    return exported


def _misshapen_group(exported: Mapping[str, Any]) -> str | None:
    """Return the path of the first part that does not tell what `judge` must know."""
    for index, group in enumerate(exported["groups"]):
        where = f"/groups/{index}"
        if not group["due"] or not all(_is_read(date, day) for day in group["due"]):
            return f"{where}/due"
        if "unread" in group:
            continue
        if type(group.get("text_version")) is not int:
            return f"{where}/text_version"
        damaged = misshapen_part(group, READ_GROUP, where) if is_known_version(group["text_version"]) else None
        if damaged is not None:
            return damaged
    return None if _is_read(datetime, exported["exported_at"]) else "/exported_at"


def _is_read(kind: type[date], text: str) -> bool:
    try:
        kind.fromisoformat(text)
    except ValueError:
        return False
    return True


def judge(exported: Mapping[str, Any], horizon: timedelta, lock: Mapping[str, Any] | None = None) -> Verdict:
    """Judge exported deliveries by the code in this process.

    Args:
        exported: as `read_export` returns it.
        horizon: what is due later than this after the export is a warning.
        lock: the lock file, as `read_lock` returns it: upcasts run on its samples of the versions that wait.
    """
    locked = {} if lock is None else lock["signals"]
    until = (datetime.fromisoformat(exported["exported_at"]) + horizon).date()
    found, deliveries, unread = [], 0, 0
    for group in exported["groups"]:
        due = {date.fromisoformat(day): number for day, number in group["due"].items()}
        number = sum(due.values())
        if "unread" in group:
            unread += number
            continue
        deliveries += number
        reasons = tuple(_reasons(group, locked))
        if reasons:
            soon = sum(some for day, some in due.items() if day <= until)
            signal = group.get("signal", "")
            found.append(
                Stranded(signal, group["receiver"], reasons, soon, number - soon, min(due), max(due), group["example"])
            )
    found.sort(key=lambda each: (each.first, each.signal, each.receiver))
    return Verdict(deliveries, tuple(found), unread)


def _reasons(group: Mapping[str, Any], locked: Mapping[str, Any]) -> Iterator[str]:
    version = group["text_version"]
    if not is_known_version(version):
        yield f"its text has version {version}, which this code does not read: install the signalbus of the sender"
        return
    signal = registry.signal(group["signal"])
    if signal is None:
        yield "this code has no such signal: declare it, or give its new name was=[…]"
        return
    receiver = group["receiver"]
    entry = signal.find(receiver, group["sender"]) if receiver else None
    if receiver and entry is None:
        yield "this code has no such receiver for its sender: connect it, or give its new id was=[…]"
    for named in group["names"]:
        try:
            _find(*named)
        except SignalBusError as error:
            yield str(error)
    try:
        carrying.reject_unknown(group["carried"])
    except SignalBusError as error:
        yield str(error)
    yield from _reasons_of_payload(signal.contract, group, None if entry is None else entry.function())
    names = [name for name in (signal.known_name(), group["signal"]) if name in locked]
    if names and signal.contract is not None:
        yield from _faults_of_upcasts(signal.contract, group["payload_version"], locked[names[0]].get("versions", {}))


def _faults_of_upcasts(contract: Contract, version: int, versions: Mapping[str, Any]) -> Iterator[str]:
    """Run the upcasts from a version that waits on its sample in the lock file."""
    sample = versions.get(str(version), {}).get("sample")
    if version < contract.version and sample is not None:
        fault = fault_of_upcasts(contract, version, sample)
        if fault is not None:
            yield f"the upcasts from version {version} fail on its sample in the lock file: {fault}"


def _reasons_of_payload(contract: Any, group: Mapping[str, Any], function: Any) -> Iterator[str]:
    version = group["payload_version"]
    try:
        reject_unknown_version(contract, version)
    except UnknownPayloadVersion as error:
        yield str(error)
        return
    keys = group["shape"].get("properties", {})
    if contract is None:
        missing = [] if function is None else [key for key in required_keys(function) if key not in keys]
        if missing:
            yield f"the receiver requires {', '.join(missing)}, which the message does not have"
        return
    if version != contract.version:
        return  # upcasts decide
    try:
        misfit = first_misfit(group["shape"], schema_of_payload(contract.payload))
    except ConfigurationError as error:
        yield str(error)
        return
    if misfit is not None and misfit not in keys:
        yield f"its payload has no {misfit}, which version {version} requires in this code"
    elif misfit is not None:
        yield f"its {misfit} is of another type than version {version} has in this code"


def _find(kind: str, name: str, member: str = "") -> None:
    """Find what a message names.

    Raises:
        UnknownClass: this process does not have it.
    """
    if kind == "model":
        model_named(name)
    elif kind == "type":
        registered_types.adapter_named(name)
    elif kind == "tag":
        raise UnknownClass(name, "this signalbus knows no such tag: install that of the sender")
    else:
        found = resolve_class(name, senders=kind == "sender")
        if member and member not in getattr(found, "__members__", {}):
            raise UnknownClass(f"{name}.{member}", "no such member in this code")

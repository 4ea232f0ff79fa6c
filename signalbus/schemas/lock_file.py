"""The lock file: what the signals and receivers of a project promised when it was written, as a text of JSON.

``manage.py signalbus schema --write`` writes it into the repository. Unchanged code writes the same bytes: the file has
no times, and everything in it is sorted. Schemas and samples of older payload versions are copied from the existing
file.
"""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings

from signalbus.exceptions import ConfigurationError
from signalbus.registration.registry import registry
from signalbus.schemas.file_forms import LOCK, misshapen_part
from signalbus.schemas.json_schema import schema_of_payload
from signalbus.schemas.samples import sample_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from signalbus.contracts.contract import Contract
    from signalbus.registration.registry import Receiver

FILE_NAME: Final = "signalbus.lock.json"
FORMAT: Final = 1

_REMEDY: Final = (
    "take the file from the repository again, or write a new one with `manage.py signalbus schema --write --accept`, "
    "which has no samples of former versions"
)
_CONFLICT: Final = re.compile(r"^(<{7}|>{7})( |$)", re.MULTILINE)

Lock = dict[str, Any]


def lock_path() -> Path:
    """Return where the lock file is: in ``BASE_DIR`` of the project's settings, or else in the current folder."""
    return Path(getattr(settings, "BASE_DIR", None) or ".") / FILE_NAME


def lock_of_code(former: Mapping[str, Any] | None = None) -> Lock:
    """Return the lock of the signals and receivers in this process.

    Args:
        former: the lock before, whose older versions are taken over.

    Raises:
        ConfigurationError: a class that cannot be a payload.
    """
    known = {} if former is None else former["signals"]
    named = {name: signal for signal in registry if not signal.is_leftover and (name := signal.known_name())}
    locked = {name: _locked(signal, known.get(_known_as(name, signal, known), {})) for name, signal in named.items()}
    return {"format": FORMAT, "signals": dict(sorted(locked.items()))}


def _known_as(name: str, signal: Any, known: Mapping[str, Any]) -> str:
    return next((each for each in (name, *signal.was) if each in known), name)


def _locked(signal: Any, former: Mapping[str, Any]) -> Lock:
    locked: Lock = {
        "durable": signal.durable,
        "open": signal.open,
        "ordered": signal.ordered_by is not None,
        "was": sorted(signal.was),
        "receivers": {
            id_: _receiver(list(entries)) for id_, entries in groupby(sorted(signal.entries(), key=_place), _id)
        },
    }
    if signal.contract is not None:
        locked["version"] = signal.contract.version
        locked["versions"] = _versions(signal.contract, former.get("versions", {}))
    return locked


def _id(entry: Receiver) -> str:
    return entry.id


def _place(entry: Receiver) -> tuple[str, str]:
    return entry.id, entry.sender or ""


def _receiver(entries: Sequence[Receiver]) -> Lock:
    """Return a receiver, which may be connected for several senders; ``sender`` is None if it listens to any."""
    senders = [entry.sender for entry in entries]
    return {
        "sender": None if None in senders else senders[0] if len(senders) == 1 else senders,
        "queue": entries[0].queue,
        "was": sorted({old for entry in entries for old in entry.policy.was}),
    }


def _versions(contract: Contract, former: Mapping[str, Any]) -> Lock:
    """Return the schemas and samples of a contract's version, and those of older ones that the lock before has."""
    schema = schema_of_payload(contract.payload)
    known = former.get(str(contract.version), {})
    kept = {number: each for number, each in former.items() if int(number) < contract.version}
    is_known = known.get("payload") == schema  # then somebody may have replaced the sample
    sample = known.get("sample") if is_known else sample_text(contract.payload)
    kept[str(contract.version)] = {"payload": schema, "sample": sample}
    return dict(sorted(kept.items(), key=lambda item: int(item[0])))


def text_of_lock(lock: Mapping[str, Any]) -> str:
    """Return a lock as the text of its file."""
    return f"{json.dumps(lock, indent=2, ensure_ascii=False)}\n"


def read_lock(path: Path) -> Lock | None:
    """Read a lock file; return None if there is none.

    Raises:
        ConfigurationError: a file of another kind, or of a newer signalbus.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON ({error}): {_REMEDY}.") from error
    if _CONFLICT.search(text):
        raise ConfigurationError(
            f"{path} has the marks of a merge conflict: keep the lines of both sides, remove the marks, and run "
            "`manage.py signalbus schema --write`."
        )
    try:
        lock = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON ({error}): {_REMEDY}.") from error
    if not isinstance(lock, dict) or lock.get("format") != FORMAT:
        found = lock.get("format") if isinstance(lock, dict) else None
        raise ConfigurationError(
            f"{path} has the format {found!r}, and this signalbus reads {FORMAT}: install the signalbus that wrote it."
        )
    damaged = misshapen_part(lock, LOCK) or _without_version(lock)
    if damaged is not None:
        raise ConfigurationError(f"{path}: {damaged} is not as signalbus wrote it: {_REMEDY}.")
    return lock


def _without_version(lock: Lock) -> str | None:
    """Return the path of the versions of a signal that are no numbers, or lack that of the signal."""
    for name, signal in lock["signals"].items():
        versions = signal.get("versions", {})
        if ("version" in signal and str(signal["version"]) not in versions) or not all(map(str.isdecimal, versions)):
            return f"/signals/{name}/versions"
    return None

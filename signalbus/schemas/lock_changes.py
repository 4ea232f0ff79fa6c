"""Compare a lock file with the code: which changes would strand messages that wait, or senders of the former code.

Each change is told with its remedy. Called by ``schema --check`` and by the system check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from signalbus.contracts.contract import reject_unknown_version
from signalbus.exceptions import UnknownPayloadVersion
from signalbus.registration.registry import registry
from signalbus.schemas.samples import fault_of_upcasts
from signalbus.schemas.schema_comparison import first_misfit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from signalbus.schemas.lock_file import Lock


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the code since the lock file was written.

    Args:
        what: the change.
        remedy: what to do about it; empty for a harmless one.
    """

    what: str
    remedy: str = ""

    @property
    def is_breaking(self) -> bool:
        """Whether messages would be stranded by it."""
        return bool(self.remedy)


def changes_between(former: Mapping[str, Any], current: Mapping[str, Any]) -> list[Change]:
    """Return what has changed.

    Args:
        former: the lock file.
        current: the lock of this code.
    """
    found: list[Change] = []
    now = current["signals"]
    renamed = {old: name for name, locked in now.items() for old in locked["was"]}
    for name, locked in former["signals"].items():
        new_name = name if name in now else renamed.get(name)
        if new_name is None:
            found.append(_removed(name, locked, {each for each in now if each not in former["signals"]}, now))
            continue
        if new_name != name:
            found.append(Change(f"the signal {name} is called {new_name}"))
        found += _changes_of_signal(new_name, locked, now[new_name])
    known = {*former["signals"], *(renamed[old] for old in former["signals"] if old in renamed)}
    found += [Change(f"the signal {name} is new") for name in now if name not in known]
    return found


def _removed(name: str, locked: Lock, new: set[str], now: Mapping[str, Any]) -> Change:
    similar = sorted(each for each in new if set(now[each]["receivers"]) == set(locked["receivers"]))
    hint = f'if it is {similar[0]} now, declare that with was=["{name}"]; if not, ' if similar else ""
    return Change(
        f"the signal {name} is gone",
        f"{hint}keep it until nothing waits for it, then accept: its messages would be parked, and given up after a "
        "day",
    )


def _changes_of_signal(name: str, former: Lock, now: Lock) -> Iterator[Change]:
    for old in sorted({*former["was"]} - {*now["was"], name}):
        yield Change(
            f"{name} is no longer known as {old}",
            f'keep was=["{old}"] until no message of that name waits, then accept',
        )
    yield from _changes_of_receivers(name, former["receivers"], now["receivers"])
    yield from _changes_of_payload(name, former, now)
    for key in ("durable", "open", "ordered"):
        if former[key] != now[key]:
            yield Change(f"{name}: {key} is {now[key]}")


def _changes_of_receivers(signal: str, former: Lock, now: Lock) -> Iterator[Change]:
    renamed = {old: name for name, locked in now.items() for old in locked["was"]}
    for name, locked in former.items():
        new_name = name if name in now else renamed.get(name)
        if new_name is None:
            added = sorted(each for each in now if each not in former)
            hint = f'if it is {added[0]} now, connect that with was=["{name}"]; if not, ' if len(added) == 1 else ""
            yield Change(
                f"the receiver {name} of {signal} is gone",
                f"{hint}keep it until nothing waits for it, then accept: its deliveries would be parked, and given up "
                "after a day",
            )
            continue
        if new_name != name:
            yield Change(f"the receiver {name} of {signal} is called {new_name}")
        yield from _changes_of_senders(
            f"the receiver {new_name} of {signal}", _senders(locked), _senders(now[new_name])
        )
        for old in sorted({*locked["was"]} - {*now[new_name]["was"], new_name}):
            yield Change(
                f"the receiver {new_name} of {signal} is no longer known as {old}",
                f'keep was=["{old}"] until no delivery to that id waits, then accept',
            )
        before, after = (each["queue"] or "the default queue" for each in (locked, now[new_name]))
        if before != after:
            yield Change(
                f"the receiver {new_name} of {signal} is delivered through {after}, and was through {before}: keep a "
                "worker on that until it is empty"
            )
    known = {*former, *(renamed[old] for old in former if old in renamed)}
    for name in now:
        if name not in known:
            yield Change(f"the receiver {name} of {signal} is new")


def _changes_of_senders(receiver: str, former: set[str], now: set[str]) -> Iterator[Change]:
    if former == now:
        return
    listens, did = (", ".join(sorted(each)) or "any sender" for each in (now, former))
    is_narrower = now and not (former and former <= now)
    yield Change(
        f"{receiver} listens to {listens}, and did to {did}",
        "connect it for the former sender as well until nothing waits for it, then accept: a worker would not find it "
        "for messages of that sender"
        if is_narrower
        else "",
    )


def _senders(locked: Lock) -> set[str]:
    """Return the senders that a receiver listens to; none if it listens to any."""
    found = locked["sender"]
    return {found} if isinstance(found, str) else set(found or ())


def _changes_of_payload(name: str, former: Lock, now: Lock) -> Iterator[Change]:
    if "version" not in former:
        if "version" in now:
            yield Change(f"{name} declares its payload")
        return
    before = former["version"]
    if "version" not in now:
        if before == 1:
            yield Change(f"{name} declares no payload any more")
        else:
            yield Change(
                f"{name} declares no payload any more, and did in version {before}",
                "declare it: a worker parks messages of a version that its code does not declare",
            )
        return
    if now["version"] < before:
        yield Change(
            f"{name} has version {now['version']}, and had {before}",
            f"declare version={before + 1} with an upcast from {before}: messages of version {before} would be parked",
        )
        return
    if now["version"] == before:
        yield from _changes_in_version(name, former["versions"][str(before)], now["versions"][str(before)], before)
    else:
        yield Change(f"{name} has version {now['version']}, and had {before}")
    yield from _faults_of_upcasts(name, former["versions"])


def _changes_in_version(name: str, former: Lock, now: Lock, version: int) -> Iterator[Change]:
    remedy = f"declare version={version + 1} with @signal.upcast(from_version={version}), or undo the change"
    before, after = former["payload"], now["payload"]
    for key, schema in before["properties"].items():
        if key not in after["properties"]:
            yield Change(f"{name} carries no {key} any more", remedy)
        elif (misfit := first_misfit(schema, after["properties"][key], key)) is not None:
            yield Change(f"{name} carries another type as {misfit}", remedy)
        elif key in after.get("required", ()) and key not in before.get("required", ()):
            yield Change(f"{name} requires {key}", f"give it a default again, or {remedy}")
    for key in after["properties"]:
        if key in before["properties"]:
            continue
        if key in after.get("required", ()):
            yield Change(f"{name} requires the new key {key}", f"give it a default, or {remedy}")
        else:
            yield Change(f"{name} carries the new key {key}")


def _faults_of_upcasts(name: str, versions: Lock) -> Iterator[Change]:
    """Yield the versions in a lock file whose messages this code cannot bring up."""
    contract = registry.signal(name).contract  # type: ignore[union-attr]  # it is in the lock of this code
    for number, locked in versions.items():
        version = int(number)
        if version == contract.version:
            continue
        try:
            reject_unknown_version(contract, version)
        except UnknownPayloadVersion as error:
            yield Change(f"{name}: of version {version}, {error}", f"add the upcasts from version {version} on")
            continue
        sample = locked.get("sample")
        fault = None if sample is None else fault_of_upcasts(contract, version, sample)
        if fault is not None:
            yield Change(
                f"{name}: the upcasts from version {version} fail on the stored sample: {fault}",
                "correct the upcast, or the sample in the lock file if it is not what was sent",
            )

"""The contract of a declared signal: its payload class, its version, and the upcasts of older versions.

`Signal(payload=…)` makes one. `sending` asks it to check a payload, `receiving/invoking` to bring one of an older
message to this version (decision 0060).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from signalbus.contracts.declared_payload import DeclaredPayload
from signalbus.contracts.payload_fields import kind_of
from signalbus.exceptions import ConfigurationError, PayloadError, UnknownPayloadVersion

Upcast = Callable[[dict[str, Any]], Mapping[str, Any]]


class Contract:
    """The payload that a signal is declared with.

    Args:
        payload: the payload class.
        version: the version of the payload; 1 for the first.

    Raises:
        ConfigurationError: not a payload class, or not a version.
    """

    __slots__ = ("_declared", "payload", "upcasts", "version")

    def __init__(self, payload: type, version: int) -> None:
        if kind_of(payload) is None:
            raise ConfigurationError(
                f"payload={payload!r}: give a dataclass, an attrs class, a TypedDict, a pydantic model or a "
                "msgspec.Struct."
            )
        self.payload: type = payload
        self.version: int = checked_version(version)
        self.upcasts: dict[int, Upcast] = {}
        self._declared: DeclaredPayload | None = None

    @property
    def declared(self) -> DeclaredPayload:
        """The fields and their checks; made when they are first needed, since annotations may name later classes."""
        if self._declared is None:
            self._declared = DeclaredPayload(self.payload)
        return self._declared

    def check(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Check a payload of this version, and fill in defaults; as `DeclaredPayload.check`."""
        return (self._declared or self.declared).check(payload)

    def add_upcast(self, from_version: int, function: Upcast) -> None:
        """Register the function that makes a payload of the next version.

        Args:
            from_version: the version that the function takes.
            function: takes and returns the payload as a dict.

        Raises:
            ConfigurationError: a version that is not below the contract's, or that has an upcast already; what is no
                function.
        """
        if type(from_version) is not int or not 1 <= from_version < self.version:
            raise ConfigurationError(
                f"upcast(from_version={from_version!r}): give a version below {self.version}, that of the signal; "
                "raise Signal(version=…) where the payload has changed."
            )
        if not callable(function):
            raise ConfigurationError(f"upcast(from_version={from_version}): {function!r} cannot be called.")
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"upcast(from_version={from_version}): {_place(function)} is a coroutine function: define it with "
                "`def`, since a worker calls it before it knows how the receiver runs."
            )
        known = self.upcasts.get(from_version)
        if known is not None and _place(known) != _place(function):
            raise ConfigurationError(
                f"upcast(from_version={from_version}) is declared twice: {_place(known)} and {_place(function)}."
            )
        self.upcasts[from_version] = function

    def missing_upcasts(self) -> list[int]:
        """Return the versions below this one that have no upcast."""
        return [version for version in range(1, self.version) if version not in self.upcasts]

    def bring_up(self, payload: dict[str, Any], version: int) -> dict[str, Any]:
        """Bring a payload that arrived to the version of this contract.

        Args:
            payload: the payload as it arrived.
            version: its version.

        Returns:
            The payload of this version, with defaults filled in.

        Raises:
            UnknownPayloadVersion: a newer version, or one that no upcast leads from.
            PayloadError: the upcasts made a payload that is not of the declared type.
            Exception: an error of an upcast.
        """
        if version == self.version:
            return self.declared.fill_in(payload)
        reject_unknown_version(self, version)
        for step in range(version, self.version):
            made: Any = self.upcasts[step](payload)
            if not isinstance(made, Mapping):
                raise PayloadError(
                    f"the upcast {_place(self.upcasts[step])} returned {type(made).__qualname__}: return the payload "
                    f"of version {step + 1} as a dict"
                )
            payload = dict(made)
        try:
            return self.check(payload)
        except PayloadError as error:
            error.args = (f"after the upcasts from version {version}: {error}",)
            raise


def reject_unknown_version(contract: Contract | None, version: int) -> None:
    """Refuse a payload whose version cannot be brought to that of this code.

    Args:
        contract: the signal's contract; None if it declares no payload.
        version: the version of the payload.

    Raises:
        UnknownPayloadVersion: it is newer, or an upcast is missing.
    """
    known = 1 if contract is None else contract.version
    if version > known:
        raise UnknownPayloadVersion(
            f"its payload has version {version}, and this worker's code has version {known} of the signal: roll this "
            "worker out"
        )
    if contract is None:
        return
    for step in range(version, known):
        if step not in contract.upcasts:
            raise UnknownPayloadVersion(
                f"its payload has version {version}, the signal has version {known}, and no upcast leads from version "
                f"{step}: add @signal.upcast(from_version={step}), and roll this worker out"
            )


def checked_version(version: object) -> int:
    """Return a version that a signal is declared with.

    Raises:
        ConfigurationError: not an int from 1 on.
    """
    if type(version) is not int or not 1 <= version < 10**9:
        raise ConfigurationError(f"version={version!r}: give an int, 1 for the first version of a payload.")
    return version


def _place(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return repr(function) if code is None else f"{function.__qualname__} at {code.co_filename}:{code.co_firstlineno}"

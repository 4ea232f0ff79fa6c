"""Check payloads against a declared class: keys, types and defaults.

`contract` makes a `DeclaredPayload` when its signal is sent, or received, for the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError

from signalbus.contracts.annotations import UNRESOLVED
from signalbus.contracts.payload_fields import fields_of, is_class_with_rules, kind_of
from signalbus.contracts.type_checks import check_of, exact_types
from signalbus.contracts.type_checks import given as in_words
from signalbus.core.suggestions import did_you_mean
from signalbus.exceptions import PayloadError
from signalbus.wire.values.references import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from signalbus.contracts.payload_fields import PayloadField
    from signalbus.contracts.type_checks import Check


class DeclaredPayload:
    """The fields of a payload class, and the checks of their values.

    Args:
        payload: the class.

    Raises:
        ConfigurationError: a class that cannot be the payload of a signal.
    """

    def __init__(self, payload: type) -> None:
        self.payload: type = payload
        self.place: str = f"{payload.__module__}.{payload.__qualname__}"
        self.fields: tuple[PayloadField, ...] = fields_of(payload)
        self.takes_more: bool = _takes_more(payload)
        self._complete: set[type] = {payload}  # it and subclasses without fields of their own
        self._has_objects = kind_of(payload) != "typeddict"
        self._by_name = {field.name: field for field in self.fields}
        self._defaults = [(field.name, field.default) for field in self.fields if field.default is not None]
        self._built: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        if kind_of(payload) == "pydantic":
            self._built = self._validated  # which checks types as well
        elif is_class_with_rules(payload):
            self._built = self._constructed
        types = {} if self._built == self._validated else {field.name: field.annotation for field in self.fields}
        self._checks: list[tuple[str, frozenset[type], Check | None, bool, Callable[[], Any] | None]] = [
            (
                field.name,
                exact_types(types.get(field.name, Any)),
                check_of(types.get(field.name, Any)),
                field.required,
                field.default if self._built is None else None,  # else the object that is made has it
            )
            for field in self.fields
        ]

    def check(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Check a payload, and fill in defaults.

        Args:
            payload: the keywords of `send`; defaults are added to it.

        Returns:
            The payload to send: that dict, or what an object of a class with rules of its own holds.

        Raises:
            PayloadError: a key is missing, unknown, or has a value of another type, or a rule of the class refuses it.
        """
        found = 0
        for name, exact, check, required, default in self._checks:
            if name in payload:
                found += 1
                value = payload[name]
                if type(value) in exact or check is None:
                    continue
                fault = check(value)
                if fault is not None:
                    raise PayloadError(f"{self.place} takes {fault.expected}, got {fault.given}", name + fault.path)
            elif required:
                raise PayloadError(f"{self.place} requires it, and it is not given", name)
            elif default is not None:
                payload[name] = default()
                found += 1
        if found != len(payload) and not self.takes_more:
            self._refuse_unknown(payload)
        return payload if self._built is None else self._built(payload)

    def fill_in(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Add the defaults of the keys that a payload of an older sender does not have.

        Args:
            payload: the payload as it arrived.
        """
        for name, default in self._defaults:
            if name not in payload and default is not None:
                payload[name] = default()
        return payload

    def values_of(self, given: object) -> dict[str, Any]:
        """Return the payload that an object of the class holds, or that a mapping is.

        Args:
            given: what `send_many` got.

        Raises:
            PayloadError: neither a mapping nor an object of the class, or one of a subclass with more fields.
        """
        if self._has_objects and isinstance(given, self.payload):
            kind = given.__class__  # of a lazy object, that of what it holds
            if kind not in self._complete:
                self._refuse_more_fields(kind)
            held = {field.name: getattr(given, field.attribute) for field in self.fields}
            return held | (getattr(given, "model_extra", None) or {} if self.takes_more else {})
        try:
            return dict(given)  # type: ignore[call-overload, no-any-return]  # the error says so if it is none
        except (TypeError, ValueError):
            raise PayloadError(
                f"a payload is a mapping or a {self.place}, got a value of type {type(given).__qualname__}"
            ) from None

    def unchecked(self) -> list[PayloadField]:
        """Return the fields whose annotation cannot be evaluated at run time, so that their values are not checked."""
        return [field for field in self.fields if field.annotation is UNRESOLVED]

    def _refuse_unknown(self, payload: Iterable[str]) -> None:
        name = next(name for name in payload if name not in self._by_name)
        if not isinstance(name, str):
            raise PayloadError(f"{self.place} has keys of type str, got {in_words(name)}")
        hint = did_you_mean(name, "…", self._by_name, {}).replace("='…'", "")
        raise PayloadError(f"{self.place} has no such key: {hint}", name)

    def _refuse_more_fields(self, kind: type) -> None:
        more = [field.name for field in fields_of(kind) if field.name not in self._by_name]
        if more:
            raise PayloadError(
                f"{self.place} has no {more[0]}, which the subclass {kind.__qualname__} has: it would be lost; declare "
                "that class, or give an object of the declared one"
            )
        self._complete.add(kind)

    def _constructed(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Make an object of the class, for rules of its own, and return what it holds."""
        return self._held(lambda values: self.payload(**values), payload)

    def _validated(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Validate by the rules of a pydantic model, in its strict mode, and return what the model holds."""
        model: Any = self.payload
        return self._held(lambda values: model.model_validate(values, strict=True), payload)

    def _held(self, make: Callable[[dict[str, Any]], object], payload: dict[str, Any]) -> dict[str, Any]:
        try:
            held = make(_without_snapshots(payload))
        except (TypeError, ValueError, ValidationError) as error:
            refused, cause = self._refused(error)
            raise refused from cause
        values = self.values_of(held)
        values.update((name, value) for name, value in payload.items() if type(value) is Snapshot)
        return values

    def _refused(self, error: Any) -> tuple[PayloadError, BaseException | None]:
        """Return the error for a payload that a rule refuses, and its cause, without pydantic's, which shows values."""
        try:
            first = error.errors(include_url=False, include_input=True)[0]
        except (AttributeError, IndexError):  # of the project's own code
            return PayloadError(f"{self.place} refuses it: {_text_of(error)}"), error
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]).lstrip(".")
        said = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        refused = PayloadError(f"{self.place}: {said}, got a value of type {type(first['input']).__qualname__}", path)
        cause = first.get("ctx", {}).get("error")
        return refused, cause if isinstance(cause, BaseException) else None


def _text_of(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(error.messages)
    if type(error) in {TypeError, ValueError} and error.args and isinstance(error.args[0], str):
        return error.args[0]  # attrs adds the attribute and the value
    return str(error)


def _takes_more(payload: Any) -> bool:
    return kind_of(payload) == "pydantic" and payload.model_config.get("extra") == "allow"


def _without_snapshots(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value.instance if type(value) is Snapshot else value for name, value in payload.items()}

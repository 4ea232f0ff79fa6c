"""Make a sample payload of each declared class, and run samples through the upcasts.

The lock file stores a sample of each version as the codec writes it. Upcasts are tried on what the codec reads from it,
as in a worker. Rows in a sample have the key 1, and are made without a database.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Hashable, Mapping, Sequence, Set
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from django.db.models import Model

from signalbus.contracts.annotations import UNRESOLVED, is_unpacked, plain_type
from signalbus.contracts.payload_fields import fields_of, kind_of
from signalbus.exceptions import ConfigurationError, PayloadError, SignalBusError, UnknownPayloadVersion
from signalbus.wire import codec
from signalbus.wire.values.references import model_named

if TYPE_CHECKING:
    from signalbus.contracts.contract import Contract

_PLAIN: Final[dict[Any, Any]] = {
    type(None): None,
    bool: True,
    int: 1,
    float: 1.5,
    str: "text",
    bytes: b"bytes",
    Decimal: Decimal("1.50"),
    UUID: UUID(int=1),
    datetime: datetime(2000, 1, 2, 3, 4, 5, tzinfo=UTC),
    date: date(2000, 1, 2),
    time: time(3, 4, 5),
    timedelta: timedelta(seconds=1),
}


class NoSample(Exception):  # noqa: N818 - says what it is
    """No value of a type is known."""


def sample_text(payload: type) -> Any:
    """Return a sample payload of a class as the codec writes it, read as JSON; None if none can be made.

    Args:
        payload: the class.
    """
    try:
        values = {field.name: sample_of(field.annotation) for field in fields_of(payload)}
        return json.loads(codec.encode(None, values)[0])[1]
    except (NoSample, PayloadError, ConfigurationError):
        return None


def sample_of(annotation: Any, around: tuple[Any, ...] = ()) -> Any:
    """Return a value of a type.

    Args:
        annotation: an evaluated annotation.
        around: the classes that it is a part of: an object of one of them would have no end.

    Raises:
        NoSample: nothing is known of the type.
    """
    kind = plain_type(annotation)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _first_sample(arguments, around)
    if origin is Literal:
        return arguments[0]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind is Any or kind is object:
        return "text"
    outer = origin or kind
    if kind is UNRESOLVED or not isinstance(outer, type) or getattr(outer, "_is_protocol", False):
        raise NoSample
    if outer is type:
        return plain_type(arguments[0]) if arguments else None
    if issubclass(outer, (Model, enum.Enum)) or kind_of(outer) is not None:
        return _object(outer, around)
    return _container(outer, arguments, around)


def _first_sample(types_of_union: Sequence[Any], around: tuple[Any, ...]) -> Any:
    """Return a value of the first type in a union that has one; None is the last choice."""
    for each in sorted(types_of_union, key=lambda each: each is type(None)):
        try:
            return sample_of(each, around)
        except NoSample:
            continue
    raise NoSample


def _object(kind: Any, around: tuple[Any, ...]) -> Any:
    """Return an object of a class with fields, a row or a member of an enum."""
    if kind in around:
        raise NoSample
    try:
        if issubclass(kind, Model):
            return row_of_sample(kind)
        if issubclass(kind, enum.Enum):
            return next(iter(kind))
        values = {field.name: sample_of(field.annotation, (*around, kind)) for field in fields_of(kind)}
        return values if kind_of(kind) == "typeddict" else kind(**values)
    except NoSample:
        raise
    except Exception as error:  # an abstract model, an enum without members, a rule that refuses the values
        raise NoSample from error


def _container(outer: type, arguments: tuple[Any, ...], around: tuple[Any, ...]) -> Any:
    if issubclass(outer, tuple):
        return tuple(sample_of(each, around) for each in arguments if each is not ... and not is_unpacked(each))
    try:
        elements = [sample_of(each, around) for each in arguments]
    except NoSample:
        elements = []  # which is a value of each container
    if issubclass(outer, Mapping):
        return {elements[0]: elements[1]} if elements else {}
    if issubclass(outer, (set, frozenset)):
        return outer(each for each in elements if isinstance(each, Hashable))
    if issubclass(list, outer) or issubclass(outer, (Sequence, Set)):
        return elements
    raise NoSample


def row_of_sample(model: type[Model], key: Any = 1) -> Model:
    """Return an instance of a model as if it was loaded, without a database.

    Args:
        model: the model.
        key: its primary key.
    """
    instance = model(pk=key)
    instance._state.adding = False  # noqa: SLF001 - Django documents it
    return instance


def fault_of_upcasts(contract: Contract, version: int, sample: Any) -> str | None:
    """Run a stored sample through the upcasts; return what is wrong, or None.

    Args:
        contract: the signal's contract.
        version: the version of the sample.
        sample: the payload as `sample_text` returned it.
    """
    try:
        _, payload = codec.decode(
            json.dumps([None, sample]),
            lambda wanted: {row: row_of_sample(model_named(row.label), row.pk) for row in wanted},
            snapshots=True,
        )
        contract.bring_up(payload, version)
    except UnknownPayloadVersion:
        return None  # a missing upcast is told as such
    except SignalBusError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever an upcast raises is what is looked for
        return f"{type(error).__name__}: {error}"
    return None

"""Make a sample payload of each declared class, and run samples through the upcasts.

The lock file stores a sample of each version as the codec writes it. Upcasts are tried on what the codec reads from it,
as in a worker. Rows in a sample have the key 1, and are made without a database.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Mapping, Sequence, Set
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


def sample_of(annotation: Any) -> Any:  # noqa: C901, PLR0912 - a line for each kind of type
    """Return a value of a type.

    Args:
        annotation: an evaluated annotation.

    Raises:
        NoSample: nothing is known of the type.
    """
    kind = plain_type(annotation)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return sample_of(next(each for each in arguments if each is not type(None)))
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
    if issubclass(outer, Model):
        return row_of_sample(outer)
    if issubclass(outer, enum.Enum):
        return next(iter(outer))
    if kind_of(outer) is not None:
        values = {field.name: sample_of(field.annotation) for field in fields_of(outer)}
        return values if kind_of(outer) == "typeddict" else outer(**values)
    if issubclass(outer, tuple):
        return tuple(sample_of(each) for each in arguments if each is not ... and not is_unpacked(each))
    elements = [sample_of(each) for each in arguments]
    if issubclass(outer, Mapping):
        return {elements[0]: elements[1]} if elements else {}
    if issubclass(outer, (set, frozenset)):
        return outer(elements)
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

"""The types of payload objects, for type checkers: `send_many` takes objects of the class that its signal declares."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol


class DataclassObject(Protocol):
    """An object of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class AttrsObject(Protocol):
    """An object of an attrs class."""

    __attrs_attrs__: ClassVar[Any]


class PydanticObject(Protocol):
    """An object of a pydantic model."""

    model_config: ClassVar[Any]


class StructObject(Protocol):
    """A msgspec struct."""

    __struct_fields__: ClassVar[tuple[str, ...]]


PayloadObject = DataclassObject | AttrsObject | PydanticObject | StructObject

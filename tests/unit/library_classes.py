"""Classes of pydantic, attrs and msgspec, for the tests of what travels of their instances."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic looks it up
from decimal import Decimal  # noqa: TC003 - as above
from functools import cached_property
from typing import Any

import attrs
import msgspec
import pydantic

made: list[str] = []  # by what ran while an instance was made


class Line(pydantic.BaseModel):
    """A model that another one holds."""

    price: Decimal
    at: datetime | None = None


class Order(pydantic.BaseModel):
    """A model with an alias, extra and private attributes, and a validator."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    number: int = pydantic.Field(alias="no")
    lines: list[Line] = []
    pair: tuple[int, ...] = (1,)
    _secret: str = pydantic.PrivateAttr("x")
    _unset: int

    @pydantic.model_validator(mode="after")
    def once(self) -> Order:
        """Note that the model was validated."""
        made.append("order")
        return self


class SubOrder(Order):
    """A kind of order."""


class Newer(pydantic.BaseModel):
    """A model of the next release."""

    a: int
    b: list[int] = pydantic.Field(default_factory=list)
    _c: int = 5


class Root(pydantic.RootModel[list[int]]):
    """A model of one value."""


class Cached(pydantic.BaseModel):
    """A model with a value that it computes once."""

    a: int

    @cached_property
    def double(self) -> int:
        """Return twice the value."""
        return self.a * 2


class AnyModel(pydantic.BaseModel):
    """A model of any value."""

    value: Any


def validate(*_args: object) -> None:
    """Note that a value was validated."""
    made.append("slotted")


@attrs.define
class Slotted:
    """A class with slots."""

    a: Any = attrs.field(validator=validate)
    b: list[Any] = attrs.Factory(list)
    _private: int = 3


@attrs.frozen(slots=False, cache_hash=True)
class FrozenAttrs:
    """A frozen class without slots, which keeps its hash."""

    a: Any
    b: Any = attrs.field()

    @b.default
    def _b(self) -> Any:
        return [self.a]


@attrs.define
class AnyAttrs:
    """A class of any value."""

    value: Any


class StructPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen struct."""

    x: Any
    y: list[int] = []
    z: int = 3


class Loose(msgspec.Struct, dict=True):
    """A struct that takes other attributes."""

    x: int


class AnyStruct(msgspec.Struct):
    """A struct of any value."""

    value: Any

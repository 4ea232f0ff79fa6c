"""One payload in the five forms that a signal may declare, and payloads with rules of their own; for tests."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from decimal import Decimal  # noqa: TC003 - read when the payload is checked
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NewType,
    NotRequired,
    Protocol,
    TypedDict,
    TypeVar,
)
from uuid import uuid4

import attrs
import msgspec
import pydantic
from django.core.validators import validate_email

from signalbus.models import State
from tasks.admissions.models import Cohort

if TYPE_CHECKING:
    import fractions

    from django.contrib.auth.models import User

Slug = NewType("Slug", str)
Held = TypeVar("Held")
Held_co = TypeVar("Held_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class CohortSaved:
    """A cohort was saved."""

    instance: Cohort
    created: bool = False
    tags: list[str] = field(default_factory=list)


@attrs.frozen(kw_only=True)
class CohortSavedAttrs:
    """A cohort was saved."""

    instance: Cohort
    created: bool = False
    tags: list[str] = attrs.field(factory=list)


class CohortSavedModel(pydantic.BaseModel):
    """A cohort was saved."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    instance: Cohort
    created: bool = False
    tags: list[str] = pydantic.Field(default_factory=list)


class CohortSavedStruct(msgspec.Struct, kw_only=True):
    """A cohort was saved."""

    instance: Cohort
    created: bool = False
    tags: list[str] = msgspec.field(default_factory=list)


class CohortSavedDict(TypedDict):
    """A cohort was saved."""

    instance: Cohort
    created: NotRequired[bool]
    tags: NotRequired[list[str]]


@dataclass(kw_only=True)
class Stamped:
    """A payload with a default that is another one for each message."""

    name: str = "text"
    stamp: str = field(default_factory=lambda: uuid4().hex)


@attrs.frozen(kw_only=True)
class StampedAttrs:
    """The same, as a class of attrs."""

    name: str = "text"
    stamp: str = attrs.field(factory=lambda: uuid4().hex)


class StampedModel(pydantic.BaseModel):
    """The same, as a pydantic model."""

    name: str = "text"
    stamp: str = pydantic.Field(default_factory=lambda: uuid4().hex)


class StampedStruct(msgspec.Struct, kw_only=True):
    """The same, as a msgspec struct."""

    name: str = "text"
    stamp: str = msgspec.field(default_factory=lambda: uuid4().hex)


class Page(TypedDict, Generic[Held]):
    """A part of a payload, of any type."""

    held: list[Held]


class Reader(Protocol[Held_co]):
    """A protocol for type checkers only."""

    def read(self) -> Held_co:
        """Return what it holds."""
        ...


class Address(TypedDict):
    """A part of a payload."""

    street: str
    number: NotRequired[int]


@dataclass(kw_only=True)
class EveryType:
    """A key of each type that is checked."""

    optional: Cohort | None = None
    either: int | str = 0
    literal: Literal["a", "b", 3] = "a"
    rows: list[Cohort] = field(default_factory=list)
    prices: dict[str, Decimal] = field(default_factory=dict)
    pair: tuple[int, str] = (1, "a")
    numbers: tuple[int, ...] = ()
    ids: frozenset[int] = frozenset()
    limited: Annotated[int, "any metadata"] = 1
    slug: Slug = Slug("")
    level: State = State.DONE
    ratio: float = 1.0
    address: Address | None = None
    model: type[Cohort] = Cohort
    anything: Any = None
    page: Page[int] | None = None
    reader: Reader[str] | None = None
    any_class: type[Any] = Cohort
    any_tuple: typing.Tuple = ()  # type: ignore[type-arg]  # noqa: UP006 - some still write it
    path: tuple[int, *tuple[str, ...]] = (1,)
    unknown: "NotHere" = None  # type: ignore[name-defined]  # noqa: F821, UP037


class StrictName(pydantic.BaseModel):
    """A model with a rule of its own."""

    name: str
    size: int = 1

    @pydantic.field_validator("name")
    @classmethod
    def is_short(cls, name: str) -> str:
        """Refuse long names, and strip blanks."""
        if len(name) > 5:
            raise ValueError("is too long")
        return name.strip()


@attrs.define
class Positive:
    """A class of attrs with a validator and a private attribute."""

    amount: int = attrs.field(validator=attrs.validators.gt(0))
    _note: str = ""


@attrs.define
class Limited:
    """A class of attrs with a validator whose error holds the value."""

    amount: int = attrs.field(validator=attrs.validators.in_([1]))


@dataclass
class CheckedAddress:
    """A dataclass whose rule is a validator of Django."""

    email: str

    def __post_init__(self) -> None:
        """Refuse what is no address."""
        validate_email(self.email)


class CheckedAddressModel(pydantic.BaseModel):
    """The same, as a pydantic model."""

    email: str

    @pydantic.field_validator("email")
    @classmethod
    def is_address(cls, email: str) -> str:
        """Refuse what is no address."""
        validate_email(email)
        return email


@attrs.define
class CheckedAddressAttrs:
    """The same, as a class of attrs."""

    email: str = attrs.field(validator=lambda _held, _field, email: validate_email(email))


@attrs.define
class Basket:
    """A class of attrs with a list as its default, which attrs shares between objects."""

    items: list[str] = []  # noqa: RUF008 - what is tested


@dataclass
class Ordered:
    """A dataclass with a rule of its own."""

    first: int
    last: int

    def __post_init__(self) -> None:
        """Refuse what is not in order."""
        if self.first > self.last:
            raise ValueError("first comes after last")


@dataclass
class ForTypeCheckers:
    """A payload whose types are imported for type checkers only, as those of a module that imports the signal."""

    user: User
    amount: "fractions.Fraction"  # noqa: UP037
    either: User | None = None

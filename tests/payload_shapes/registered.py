"""The classes of the shapes, each under a name: of pydantic, attrs, msgspec, a named tuple and a plain class."""

from __future__ import annotations

from datetime import UTC, datetime  # pydantic looks them up
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic

from signalbus import codec


class Line(pydantic.BaseModel):
    """A line of an order."""

    sku: str
    price: Any


class Order(pydantic.BaseModel):
    """An order with its lines."""

    number: int
    placed_at: datetime
    lines: list[Line] = []


@attrs.frozen
class CourseData:
    """What a course is, as openedx-events sends it."""

    course_key: str
    start: datetime
    instructors: tuple[Any, ...] = ()


class Point(msgspec.Struct):
    """A place on a map."""

    x: float
    y: float


class Version(NamedTuple):
    """A version."""

    major: int
    minor: int = 0


class TrackingEvent:
    """What happened to a letter, as anymail sends it."""

    def __init__(self, kind: str, at: datetime, tags: set[str]) -> None:
        self.kind = kind
        self.at = at
        self.tags = tags

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def encode_event(event: TrackingEvent) -> dict[str, Any]:
    """Take an event apart."""
    return vars(event)


def decode_event(parts: dict[str, Any]) -> TrackingEvent:
    """Put an event together."""
    return TrackingEvent(**parts)


codec.register(Line, name="order-line")
codec.register(Order, name="order")
codec.register(CourseData, name="course-data")
codec.register(Point, name="point", example=Point(1.5, -2.0))
codec.register(Version, name="version")
codec.register(
    TrackingEvent,
    name="tracking-event",
    encode=encode_event,
    decode=decode_event,
    example=TrackingEvent("opened", datetime(2026, 1, 2, tzinfo=UTC), {"welcome"}),
)

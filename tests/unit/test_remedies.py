"""The error for a value that cannot travel says what to write instead."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import fractions
import ipaddress
import pathlib
import re
import threading
from typing import Any, NamedTuple

import pytest
from django.http import QueryDict

from signalbus.exceptions import PayloadError
from signalbus.wire import codec


class PydanticLike:
    """A class that offers what pydantic's models do."""

    def model_dump(self) -> dict[str, Any]:
        return {}


class AttrsLike:
    """A class that offers what attrs classes do."""

    __attrs_attrs__ = ()


class StructLike:
    """A class that offers what msgspec's structs do."""

    __struct_fields__ = ()


class IntegerLike:
    """A class that offers what numpy's integers do."""

    __array_interface__ = None

    def __index__(self) -> int:
        return 1


class ArrayLike:
    """A class that offers what numpy's arrays do."""

    __array_interface__ = None

    def __len__(self) -> int:
        return 0

    def __getitem__(self, place: int) -> int:
        return 0

    def tolist(self) -> list[int]:
        return []


class Money:
    """An amount in a currency."""


class Pair(NamedTuple):
    """A named tuple."""

    one: int
    two: int


@dataclasses.dataclass
class Local:
    """A dataclass outside of the installed apps."""

    number: int


class Text(str):
    """A kind of text."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (type("Local", (type(pathlib.Path("x")),), {})("x"), "str(value)"),
        (type("Address", (ipaddress.IPv6Address,), {})("::1"), "str(value)"),
        (type("Network", (ipaddress.IPv4Network,), {})("10.0.0.0/8"), "str(value)"),
        (type("Queue", (collections.deque,), {})(), "list(value)"),
        (collections.UserList(), "list(value)"),
        (collections.UserString("x"), "str(value)"),
        (collections.ChainMap(), "dict(value)"),
        ({}.keys(), "list(value)"),
        (type("Point", (complex,), {})(1j), "[value.real, value.imag]"),
        (type("Share", (fractions.Fraction,), {})(1, 2), "[value.numerator, value.denominator]"),
        (type("Zone", (dt.tzinfo,), {})(), "its name"),
        (PydanticLike(), "value.model_dump(mode='json')"),
        (AttrsLike(), "attrs.asdict(value)"),
        (StructLike(), "msgspec.structs.asdict(value)"),
        (IntegerLike(), "int(value)"),
        (ArrayLike(), "value.tolist()"),
        (Money(), "[value.amount, str(value.currency)]"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_the_remedy_is_an_expression_to_copy(value, remedy):
    """The error names the expression that gives a value which travels."""
    with pytest.raises(PayloadError, match=f"send {re.escape(remedy)}"):
        codec.encode(None, {"value": value})


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (PydanticLike(), 'register it, signalbus.codec.register(PydanticLike, name="pydantic-like"), or send'),
        (AttrsLike(), 'register it, signalbus.codec.register(AttrsLike, name="attrs-like"), or send'),
        (Local(1), 'register the class, signalbus.codec.register(Local, name="local")'),
        (Pair(1, 2), 'register it, signalbus.codec.register(Pair, name="pair"), or send value._asdict()'),
        (Money(), 'register the class, signalbus.codec.register(Money, name="money", encode=…, decode=…)'),
        (Text("x"), 'register the class, signalbus.codec.register(Text, name="text", encode=…, decode=…)'),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_the_remedy_names_the_line_that_registers_the_class(value, line):
    """A class of the project travels once the line of the error is written."""
    with pytest.raises(PayloadError) as caught:
        codec.encode(None, {"value": value})

    assert line in str(caught.value)


def test_a_standard_class_is_not_to_be_registered():
    """Nobody can say what of a lock arrives elsewhere."""
    with pytest.raises(PayloadError) as caught:
        codec.encode(None, {"value": threading.Lock()})

    assert "register" not in str(caught.value)


def test_a_kind_of_querydict_is_refused():
    """The error names both ways to make a dict of it."""
    with pytest.raises(PayloadError) as caught:
        codec.encode(None, {"value": type("Query", (QueryDict,), {})("a=1")})

    assert "send value.dict(), or dict(value.lists())" in str(caught.value)

"""The error for a value that cannot travel says what to write instead."""

from __future__ import annotations

import collections
import datetime as dt
import fractions
import ipaddress
import pathlib
import re
from typing import Any

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


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (pathlib.Path("x"), "str(value)"),
        (ipaddress.ip_address("::1"), "str(value)"),
        (ipaddress.ip_network("10.0.0.0/8"), "str(value)"),
        (collections.deque(), "list(value)"),
        (collections.UserList(), "list(value)"),
        (collections.UserString("x"), "str(value)"),
        (collections.ChainMap(), "dict(value)"),
        ({}.keys(), "list(value)"),
        (1j, "[value.real, value.imag]"),
        (fractions.Fraction(1, 2), "[value.numerator, value.denominator]"),
        (re.compile("x"), "value.pattern"),
        (dt.UTC, "its name"),
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


def test_a_querydict_is_not_called_a_subclass_of_itself():
    """The error names both ways to make a dict of it."""
    with pytest.raises(PayloadError) as caught:
        codec.encode(None, {"value": QueryDict("a=1")})

    assert "subclass" not in str(caught.value)
    assert "send value.dict(), or dict(value.lists())" in str(caught.value)

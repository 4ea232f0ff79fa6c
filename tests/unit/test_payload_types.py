# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""mypy and pyright, which `make check` runs, know the keys of a declared payload, and report a wrong one.

Both also report a ``type: ignore`` that ignores nothing, so each one here shows that its line is refused. pyright takes
the keys of a TypedDict for optional.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict, assert_type

import attrs
import msgspec
import pydantic
import pytest

from signalbus import Sent, Signal
from signalbus.exceptions import ConfigurationError, PayloadError


@dataclass(frozen=True, kw_only=True)
class Paid:
    """An order was paid."""

    number: int
    express: bool = False


@attrs.frozen(kw_only=True)
class PaidAttrs:
    """An order was paid."""

    number: int
    express: bool = False


class PaidModel(pydantic.BaseModel):
    """An order was paid."""

    number: int
    express: bool = False


class PaidStruct(msgspec.Struct, kw_only=True):
    """An order was paid."""

    number: int
    express: bool = False


class PaidDict(TypedDict):
    """An order was paid."""

    number: int


paid = Signal("tests.paid_types", payload=Paid)
paid_attrs = Signal("tests.paid_types_attrs", payload=PaidAttrs, durable=False)
paid_model = Signal("tests.paid_types_model", payload=PaidModel)
paid_struct = Signal("tests.paid_types_struct", payload=PaidStruct)
paid_dict = Signal("tests.paid_types_dict", payload=PaidDict)
undeclared = Signal("tests.undeclared_types")


def takes_any(signal: Signal) -> str:
    """Take any signal, declared or not: its type needs no parameters."""
    return signal.name


def test_right_calls_are_accepted():
    """Each form of send takes the declared keys, the sender by position or keyword, and returns what it returned."""
    asyncio.run(call_rightly())
    assert takes_any(paid) == "tests.paid_types"
    assert takes_any(undeclared) == "tests.undeclared_types"


def test_wrong_calls_are_refused():
    """A wrong, missing or unknown key is an error of the type checker, and when the code runs."""
    asyncio.run(call_wrongly())


async def call_rightly() -> None:
    """Call each form of send as declared."""
    assert type(assert_type(paid.send(None, number=1), Sent)) is Sent
    assert type(assert_type(paid.send(sender=None, number=1, express=True), Sent)) is Sent
    assert type(assert_type(await paid.asend(None, number=1), Sent)) is Sent
    paid.send_robust(None, number=1, express=True)
    await paid.asend_robust(None, number=1)
    paid.send_later(timedelta(), None, number=1)
    paid.send_later(timedelta(), sender=None, number=1)
    await paid.asend_later(timedelta(), None, number=1)
    paid.send_many(None, [{"number": 1}, Paid(number=2)])
    paid_attrs.send_many(None, [PaidAttrs(number=1)])
    paid_model.send_many(None, [PaidModel(number=1)])
    paid_struct.send_many(None, [PaidStruct(number=1)])
    for signal in (paid_attrs, paid_model, paid_struct):
        signal.send(None, number=1, express=False)
    paid_dict.send(None, number=1)
    undeclared.send(None)
    undeclared.send(None, anything=1)
    undeclared.send_later(timedelta(), None, anything=1)


async def call_wrongly() -> None:
    """Call the forms of send otherwise."""
    with pytest.raises(PayloadError):
        paid.send(None, number="1")  # type: ignore[arg-type]
    with pytest.raises(PayloadError):
        paid.send(None)  # type: ignore[call-arg]
    with pytest.raises(PayloadError):
        paid.send(None, number=1, expres=True)  # type: ignore[call-arg]
    with pytest.raises(PayloadError):
        await paid.asend(None, number=1, express="yes")  # type: ignore[arg-type]
    with pytest.raises(PayloadError):
        paid.send_later(timedelta(), None, nmber=1)  # type: ignore[call-arg]
    with pytest.raises(PayloadError):
        await paid.asend_later(timedelta(), None)  # type: ignore[call-arg]
    with pytest.raises(PayloadError):
        paid_attrs.send(None, number=None)  # type: ignore[arg-type]
    with pytest.raises(PayloadError):
        paid_model.send(None, number="1")  # type: ignore[arg-type]
    with pytest.raises(PayloadError):
        paid_struct.send(None, number=1, more=2)  # type: ignore[call-arg]
    with pytest.raises(PayloadError):
        paid_dict.send(None, number="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        paid.send(None, 1)  # type: ignore[call-arg]
    with pytest.raises(PayloadError):
        paid.send_many(None, [1])  # type: ignore[list-item]


def test_wrong_options_are_refused():
    """An option that does not exist, and a payload that is no class, are errors of the type checker."""
    with pytest.raises(TypeError, match="did you mean durable"):
        Signal(durabel=True)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="payload=7"):
        Signal(payload=7)  # type: ignore[call-overload]

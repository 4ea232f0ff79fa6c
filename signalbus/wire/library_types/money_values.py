"""Encode and decode amounts of money: those of django-money, and those of py-moneyed, which it is built on."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final

import moneyed

from signalbus.exceptions import PayloadError, UnknownClass
from signalbus.wire.values.registered_types import TypeAdapter


def adapter_for(kind: type) -> TypeAdapter | None:
    """Return the adapter for a type."""
    if kind is moneyed.Money:
        return _PLAIN
    if kind is moneyed.Currency:
        return _CURRENCY
    djmoney = sys.modules.get("djmoney.money")
    return _DJANGO if djmoney is not None and kind is djmoney.Money else None


def _code(currency: Any) -> str:
    if moneyed.get_currency(currency.code) != currency:
        raise PayloadError(f"{currency!r} is another currency than moneyed.get_currency() finds under its code")
    return str(currency.code)


def _currency(code: Any) -> Any:
    try:
        return moneyed.get_currency(code)
    except moneyed.CurrencyDoesNotExist as error:
        name = f"the currency {code!r}"[:100]
        raise UnknownClass(name, "add it with moneyed.add_currency() in this worker") from error


def _parts(value: Any) -> list[Any]:
    return [value.amount, _code(value.currency)]


def _plain(parts: Any) -> Any:
    amount, code = parts
    return moneyed.Money(amount, _currency(code))


def _parts_with_format(value: Any) -> list[Any]:
    options = value.format_options
    return [*_parts(value), value.decimal_places, None if options is None else dict(options)]


def _with_format(parts: Any) -> Any:
    amount, code, decimal_places, options = parts
    money = import_module("djmoney.money").Money
    return money(amount, _currency(code), decimal_places=decimal_places, format_options=options)


_PLAIN: Final = TypeAdapter(name="money:amount", encode=_parts, decode=_plain)
_DJANGO: Final = TypeAdapter(name="money:django-amount", encode=_parts_with_format, decode=_with_format)
_CURRENCY: Final = TypeAdapter(name="money:currency", encode=_code, decode=_currency)
BY_NAME: Final[dict[str, TypeAdapter]] = {adapter.name: adapter for adapter in (_PLAIN, _DJANGO, _CURRENCY)}

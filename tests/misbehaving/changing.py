"""A signal whose declared payload changes with a deploy: ``SIGNALBUS_TESTS_PAYLOAD`` is the version of the code."""

from __future__ import annotations

import os
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from signalbus import Signal

VERSION = int(os.environ.get("SIGNALBUS_TESTS_PAYLOAD", "1"))


@dataclass(kw_only=True)
class PaidInCents:
    """Version 1."""

    number: int
    cents: int


@dataclass(kw_only=True)
class PaidInUnits:
    """Version 2."""

    number: int
    amount: Decimal


changing: Signal = Signal("misbehaving.changing", payload=PaidInCents if VERSION == 1 else PaidInUnits, version=VERSION)
if VERSION == 2:

    @changing.upcast(from_version=1)
    def cents_to_amount(payload: dict[str, Any]) -> dict[str, Any]:
        """Bring a payload of version 1 up."""
        return {"number": payload["number"], "amount": Decimal(payload["cents"]) / 100}


def amount_of(number: int) -> dict[str, Any]:
    """Return the payload that this version's sender gives for a number."""
    if VERSION == 1:
        return {"number": number, "cents": number * 100}
    return {"number": number, "amount": Decimal(number)}

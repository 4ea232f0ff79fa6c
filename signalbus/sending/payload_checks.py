"""Check payloads against the contract of their signal, also under an event loop, which forbids queries on its thread.

`signal` and `scheduling` call it before anything is sent. A check may query a database: it looks at the class of a lazy
row, as of ``request.user``, and rules of a payload class may do anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from signalbus.exceptions import PayloadError
from signalbus.sending import event_loop_guard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from signalbus.contracts.contract import Contract


def reject_positional(form: str, args: tuple[Any, ...]) -> None:
    """Refuse a payload that was given without keywords.

    Args:
        form: the method that was called.
        args: what was given without a keyword.

    Raises:
        TypeError: there is some.
    """
    if args:
        raise TypeError(f"{form}() takes the sender, and the payload as keywords: give {args[0]!r:.100} a key.")


def checked(contract: Contract | None, payload: dict[str, Any]) -> dict[str, Any]:
    """Check a payload, and fill in its defaults.

    Args:
        contract: the contract of the signal; None if it declares no payload.
        payload: the payload as it was given; defaults are added to it.

    Raises:
        PayloadError: it is not as declared.
    """
    if contract is None:
        return payload
    try:
        return contract.check(payload)
    except Exception:
        # Whatever a rule of the class makes of it, a check that asks a database was not allowed to under an event loop.
        if not event_loop_guard.forbid_databases():
            raise
    return event_loop_guard.call_away(contract.check, payload)


async def achecked(contract: Contract | None, payload: dict[str, Any]) -> dict[str, Any]:
    """Check a payload as `checked` does, from a coroutine, which does not block its event loop."""
    if contract is None:
        return payload
    try:
        return contract.check(payload)
    except Exception:
        if not event_loop_guard.forbid_databases():
            raise
    return await sync_to_async(contract.check)(payload)


def checked_robustly(contract: Contract, payload: dict[str, Any]) -> tuple[dict[str, Any], Exception | None]:
    """Return a payload with its defaults, or as it is with the error for which it cannot be sent."""
    try:
        return checked(contract, {**payload}), None
    except Exception as error:  # noqa: BLE001 - also whatever a rule of the payload class raises
        return payload, error


async def achecked_robustly(contract: Contract, payload: dict[str, Any]) -> tuple[dict[str, Any], Exception | None]:
    """Do as `checked_robustly` does, from a coroutine."""
    try:
        return await achecked(contract, {**payload}), None
    except Exception as error:  # noqa: BLE001 - as above
        return payload, error


def checked_payloads(contract: Contract | None, payloads: Iterable[Any]) -> Sequence[Mapping[str, Any]]:
    """Return the payloads of `send_many`, checked and with their defaults.

    Args:
        contract: the contract of the signal; None if it declares no payload.
        payloads: mappings, or objects of the declared class.

    Raises:
        PayloadError: one of them is not as declared.
    """
    if contract is None:
        return list(payloads)
    made: list[Mapping[str, Any]] = []
    for index, payload in enumerate(payloads):
        try:
            made.append(checked(contract, contract.declared.values_of(payload)))
        except PayloadError as error:
            error.inside(f"[{index}]")
            raise
    return made

"""Decide whether a delivery may run now: alone, in a group commit, only after a claim, or not yet (held).

`attempt` and `grouping` ask `decide`; listeners observe, gates decide (decisions 0042 and 0045). A gate is a function
of a message and its receiver. It returns None where it has nothing to say, "claim" if the attempt must be counted
before it runs, or `Held` if the delivery must wait. Without gates, only what the worker knows of the delivery and its
receiver decides. `ledger/attempts/held_rows` records that a delivery is held.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from django.db import DatabaseError

from signalbus.receiving.invoking.runner import describe
from signalbus.receiving.process.receiver_runtimes import runtimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.registration.registry import Receiver
    from signalbus.wire.message import Message

    Gate = Callable[[Message, Receiver], "Held | Literal['claim'] | None"]

G = TypeVar("G", bound="Gate")

logger: logging.Logger = logging.getLogger("signalbus")

# Alone; in a group commit; alone, after its attempt was counted in a commit of its own.
Verdict = Literal["run", "share", "claim"]

FAILED_SECONDS = 60.0  # that a delivery is held whose gate raised an error


@dataclass(frozen=True, slots=True)
class Held:
    """The verdict that a delivery must not run now.

    Args:
        reason: why, for people: `manage.py signalbus failed --state held` shows it.
        seconds: until the sweeper publishes it and the gates are asked again; infinite: until it is released.
        still_applies: called in the transaction that holds the delivery, where it may lock what the verdict depends
            on. If it returns False, the reason is gone, and the delivery is due at once.
    """

    reason: str
    seconds: float = math.inf
    still_applies: Callable[[], bool] | None = None


# They are asked in this order, and the first that holds the delivery decides. `register_gate` adds to them.
GATES: list[Gate] = []


def register_gate(gate: G) -> G:
    """Ask a gate before each delivery, in this process and those that it forks; a decorator.

    A gate has no effects: it may be asked more than once before a delivery runs.

    Args:
        gate: a function of a message and its receiver; one that is registered already is not asked twice.

    Returns:
        The same function.
    """
    if gate not in GATES:
        GATES.append(gate)
    return gate


def decide(
    message: Message, receiver: Receiver, *, recorded: bool, suspect: bool = False, alone: bool = False
) -> Verdict | Held:
    """Decide whether a delivery may run now, and how.

    Args:
        message: the message.
        receiver: its receiver.
        recorded: it has a row in the ledger.
        suspect: it may end its worker, as it may have done before: its attempt must be counted first.
        alone: it runs by itself in any case.

    Returns:
        The verdict; `Held` takes effect when the ledger has recorded it.
    """
    answer = _ask(message, receiver) if GATES else None
    if isinstance(answer, Held):
        return answer
    if recorded and (suspect or not receiver.atomic or answer == "claim"):
        return "claim"
    if alone or not recorded or message.ordering_key is not None or not can_share_commit(receiver):
        return "run"
    return "share"


def is_held(message: Message, receiver: Receiver) -> bool:
    """Return whether a gate holds a delivery now.

    Args:
        message: the message.
        receiver: its receiver.
    """
    return bool(GATES) and isinstance(_ask(message, receiver), Held)


def can_share_commit(receiver: Receiver) -> bool:
    """Return whether a receiver's options allow a group commit, and its runs have been short."""
    return receiver.atomic and not receiver.is_async and receiver.timeout is None and runtimes.may_share(receiver.id)


def _ask(message: Message, receiver: Receiver) -> Held | Literal["claim"] | None:
    """Ask all gates; hold a delivery if a gate raises an error, because its decision is not known."""
    verdict: Literal["claim"] | None = None
    for gate in GATES:
        try:
            answer = gate(message, receiver)
        except DatabaseError:
            raise  # the broker keeps the message, as where the ledger is away
        except Exception as error:  # a gate may raise anything
            logger.exception("signalbus: the gate %r failed: %s to %s waits", gate, message.id, receiver.id)
            return Held(f"the gate {gate!r} failed: {describe(error)}", FAILED_SECONDS)
        if isinstance(answer, Held):
            return answer
        verdict = answer or verdict
    return verdict

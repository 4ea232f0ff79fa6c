"""The gate that holds the deliveries of a paused receiver, signal or queue (decision 0047)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from signalbus import celery
from signalbus.ledger import attempts as ledger
from signalbus.receiving.pausing.pause_watch import watch
from signalbus.receiving.running.gates import Held, register_gate
from signalbus.registration.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalbus.ledger.attempts import PauseRow
    from signalbus.receiving.pausing.pause_watch import Pauses
    from signalbus.registration.registry import Receiver
    from signalbus.wire.message import Message


def obey_pauses() -> None:
    """Hold what is paused, in this process and those that it forks; called once, when a worker starts."""
    register_gate(hold_if_paused)


def hold_if_paused(message: Message, receiver: Receiver) -> Held | None:
    """Hold a delivery whose receiver, signal or queue is paused, until it is released.

    Args:
        message: what is delivered.
        receiver: to whom.
    """
    paused = watch.paused()
    if not paused:
        return None
    found = next(_matching(paused, message, receiver), None)
    # What the process remembers may be over by now: the ledger decides.
    return None if found is None else Held(found.held_reason(), still_applies=partial(ledger.is_in_force, found.id))


def _matching(paused: Pauses, message: Message, receiver: Receiver) -> Iterator[PauseRow]:
    for kind, names in (
        ("receiver", (receiver.id, *receiver.policy.was)),
        ("signal", _names(message.signal)),
        ("queue", (receiver.queue or celery.default_queue(),)),
    ):
        yield from (found for name in names if (found := paused.get((kind, name))) is not None)


def _names(name: str) -> tuple[str, ...]:
    """Return the names of a signal: what it is called in a message, today, and before."""
    signal = registry.signal(name)
    return (name,) if signal is None else (name, signal.name, *signal.was)

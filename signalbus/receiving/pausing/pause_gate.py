"""The gate that holds what is for a paused receiver, signal or queue, or what a filter matches (decision 0047)."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from signalbus import celery
from signalbus.core.name_patterns import match_all, read_patterns
from signalbus.ledger import attempts as ledger
from signalbus.receiving.pausing.pause_watch import watch
from signalbus.receiving.running.gates import Held, register_gate
from signalbus.registration.registry import registry

if TYPE_CHECKING:
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
    # As brief as can be: most deliveries go no further.
    if monotonic() < watch.quiet_until[0] or not (paused := watch.paused()):
        return None
    names = _names(message, receiver)
    found = next((row for target, row in paused.items() if _matches(target, names)), None)
    # What the process remembers may be over by now: the ledger decides.
    return None if found is None else Held(found.held_reason(), still_applies=partial(ledger.is_in_force, found.id))


def _matches(target: tuple[str, str], names: dict[str, tuple[str, ...]]) -> bool:
    kind, name = target
    return match_all(read_patterns(name), names) if kind == "filter" else name in names.get(kind, ())


def _names(message: Message, receiver: Receiver) -> dict[str, tuple[str, ...]]:
    """Return the names by which a delivery can be paused: of today, and of before."""
    signal = registry.signal(message.signal)
    return {
        "receiver": (receiver.id, *receiver.policy.was),
        "signal": (message.signal,) if signal is None else (message.signal, signal.name, *signal.was),
        "queue": (receiver.queue or celery.default_queue(),),
    }

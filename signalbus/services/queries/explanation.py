"""Explain a signal: which receivers a sending reaches, where they run, with which policy, and which it does not reach.

Called by the command ``explain``. It looks at this process' registry, which is the workers' if they run the same code.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from signalbus.celery import default_queue
from signalbus.exceptions import ConfigurationError
from signalbus.registration.registry import registry
from signalbus.services.filters import subject_from

if TYPE_CHECKING:
    from signalbus.registration.registry import Receiver


@dataclass(frozen=True, slots=True)
class Explained:
    """A receiver of a signal.

    Args:
        id: its id.
        place: where it is defined.
        sender: the sender that it listens to; None for any.
        queue: the queue that it is delivered through.
        policy: its policy in words.
        reached: whether a sending reaches it.
        why: the reason if not.
    """

    id: str
    place: str
    sender: str | None
    queue: str
    policy: str
    reached: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A signal with its receivers.

    Args:
        signal: its name.
        place: where it is declared.
        facts: what holds for all its messages, in words.
        receivers: the receivers in workers.
        inline: how many receivers run in the sender's process.
    """

    signal: str
    place: str
    facts: tuple[str, ...]
    receivers: tuple[Explained, ...]
    inline: int

    @property
    def reached(self) -> int:
        """The number of receivers in workers that a sending reaches."""
        return sum(each.reached for each in self.receivers)


def known_signals() -> dict[str, Any]:
    """Return the signals of this process by name, sorted; without those that have no name yet."""
    named = {name: signal for signal in registry if (name := signal.known_name()) is not None}
    return dict(sorted(named.items()))


def explain(name: str, sender: str | None = None) -> Explanation:
    """Explain a signal.

    Args:
        name: the signal's name, or one that it had before.
        sender: the name of a sender, as ``app.Model``; None for a sending by any of them.

    Raises:
        ConfigurationError: this process knows no such signal; with the names that are like it.
    """
    signal = registry.signal(name)
    if signal is None:
        close = difflib.get_close_matches(name, known_signals(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`manage.py signalbus list` shows the signals."
        raise ConfigurationError(f"This process knows no signal {name!r}: {hint}")
    asked = None if sender is None else subject_from(f"{sender}:").partition(" ")[0]
    receivers = [_explained(entry, asked) for entry in signal.entries()]
    return Explanation(
        signal.name, signal.place, tuple(_facts(signal)), tuple(receivers), len(signal.receivers) - len(receivers)
    )


def _explained(entry: Receiver, sender: str | None) -> Explained:
    reached = sender is None or entry.sender in {None, sender}
    return Explained(
        id=entry.id,
        place=entry.place,
        sender=entry.sender,
        queue=entry.queue or default_queue(),
        policy=", ".join(_policy(entry)),
        reached=reached,
        why="" if reached else f"listens to {entry.sender} only",
    )


def _policy(entry: Receiver) -> list[str]:
    retry = entry.retry
    words = ["in a transaction" if entry.atomic else "atomic=False"]
    words.append("one attempt" if retry.max_attempts == 1 else f"{retry.max_attempts} attempts")
    if entry.timeout is not None:
        words.append(f"timeout {entry.timeout:g} s")
    if entry.policy.on_missing != "skip":
        words.append(f"on_missing={entry.policy.on_missing!r}")
    if entry.is_async:
        words.append("async")
    return words


def _facts(signal: Any) -> list[str]:
    facts = ["durable: a row for each delivery" if signal.durable else "durable=False: a row only if it fails"]
    if signal.open:
        facts.append("open: workers look up the receivers")
    if signal.ordered_by is not None:
        facts.append("ordered: one delivery of a key at a time")
    if signal.contract is not None:
        payload = signal.contract.payload
        facts.append(f"carries {payload.__module__}.{payload.__qualname__}, version {signal.contract.version}")
    if signal.was:
        facts.append(f"formerly {', '.join(signal.was)}")
    return facts

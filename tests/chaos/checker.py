"""The checker judges a run by its evidence: lost, duplicate, phantom, stuck and dead deliveries, and the delays.

It counts as Jepsen does: what was acknowledged must have happened, what was rolled back must not, and a ``send()`` that
raised, or whose process died before it returned, may have done either: its row in the database tells which.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.roles import AT_LEAST_ONCE, FATAL, RECIPIENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos.journal import Notes

ENDED = frozenset({"dead", "skipped", "discarded"})  # visibly, without success

WRONG = ("lost", "duplicate", "repeated", "phantom", "stuck", "dead")

Pair = tuple[str, str]  # a message, and a receiver


@dataclass(frozen=True, slots=True)
class Effect:
    """A receiver's row in its database.

    Args:
        message: the message's id.
        receiver: the receiver's.
        at: when, as ``time.monotonic()``.
    """

    message: str
    receiver: str
    at: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All facts about a run that is over.

    Args:
        notes: the senders' and receivers' journal.
        committed: the messages whose sender's own row, written in the same transaction, is in the database.
        effects: what the receivers wrote.
        states: what the ledger says of each delivery that it knows.
        held: the messages that the broker still holds, waiting or given out.
    """

    notes: Notes
    committed: frozenset[str]
    effects: Sequence[Effect]
    states: Mapping[Pair, str]
    held: frozenset[str] = frozenset()


@dataclass(slots=True)
class Verdict:
    """The result: sets of (message, receiver), so that each counted delivery can be looked up.

    Args:
        owed: what had to happen.
        lost: owed, without an effect, and neither ledger nor broker remembers it; or the ledger says that it is done.
        duplicate: more than one effect in the receipt's own database, of an atomic receiver.
        repeated: more than one effect of a receiver that is promised at least once only.
        phantom: an effect of what was never committed.
        stuck: still open in the ledger, or in the broker and without an effect, when the run was over.
        dead: ended without success, though it could have succeeded.
        delays: seconds from ``send()`` to the first effect, by pair.
    """

    owed: set[Pair] = field(default_factory=set)
    lost: set[Pair] = field(default_factory=set)
    duplicate: set[Pair] = field(default_factory=set)
    repeated: set[Pair] = field(default_factory=set)
    phantom: set[Pair] = field(default_factory=set)
    stuck: set[Pair] = field(default_factory=set)
    dead: set[Pair] = field(default_factory=set)
    delays: dict[Pair, float] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Return the counts and the delays, by name."""
        counts = {"owed": len(self.owed)} | {name: len(getattr(self, name)) for name in WRONG}
        return counts | delay_figures(self.delays.values())

    def examples(self, limit: int = 5) -> dict[str, list[str]]:
        """Return some of the faulty deliveries, by kind, to be looked up in journal and logs."""
        found = {name: sorted(getattr(self, name))[:limit] for name in WRONG}
        return {name: [" to ".join(pair) for pair in pairs] for name, pairs in found.items() if pairs}


def delay_figures(delays: Iterable[float]) -> dict[str, float]:
    """Return p50, p99 and max of some seconds; nothing of none."""
    ordered = sorted(delays)
    if not ordered:
        return {}
    return {"p50": _percentile(ordered, 50), "p99": _percentile(ordered, 99), "max": ordered[-1]}


def _percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest rank, which is always a measured value."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def judge(evidence: Evidence) -> Verdict:
    """Compare the owed deliveries with their effects.

    Args:
        evidence: of a run that is over.

    Returns:
        The verdict; its sets do not overlap but for ``phantom`` and ``duplicate``, which look at effects alone.
    """
    notes = evidence.notes
    bound = evidence.committed | notes.acknowledged.keys()
    verdict = Verdict()
    verdict.owed = {(m, r) for m in bound if m in notes.sent for r in RECIPIENTS[notes.sent[m][0]]}
    times = Counter((effect.message, effect.receiver) for effect in evidence.effects)
    verdict.phantom = {pair for pair in times if pair[0] not in bound}
    many = {pair for pair, count in times.items() if count > 1}
    verdict.repeated = {pair for pair in many if pair[1] in AT_LEAST_ONCE}
    verdict.duplicate = many - verdict.repeated
    for pair in verdict.owed:
        state = evidence.states.get(pair)
        if state is not None and state not in ENDED and state != "done":
            verdict.stuck.add(pair)
        elif times[pair]:
            continue
        elif state in ENDED:
            if pair[1] not in FATAL:
                verdict.dead.add(pair)
        elif state is None and pair[0] in evidence.held:
            verdict.stuck.add(pair)
        else:
            verdict.lost.add(pair)
    for effect in evidence.effects:
        pair = (effect.message, effect.receiver)
        if pair in verdict.owed:
            delay = max(0.0, effect.at - notes.sent[effect.message][1])
            verdict.delays[pair] = min(delay, verdict.delays.get(pair, math.inf))
    return verdict

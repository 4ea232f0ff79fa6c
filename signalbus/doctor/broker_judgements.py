"""Judge whether the broker may lose or redeliver messages, and whether broker and database answer, with their clocks.

`examination` calls these functions with facts; the system checks call `judge_visibility`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from signalbus.doctor.findings import Finding, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

DRIFT: Final = 5.0  # seconds between two clocks that are worth a warning
MOST_DRIFT: Final = 60.0
SHOWN: Final = 5  # signals


def judge_eviction(policy: str, maxmemory: int) -> Finding:
    """Judge whether Redis may throw messages away when its memory is full.

    Args:
        policy: ``maxmemory-policy``.
        maxmemory: in bytes; 0: no limit.
    """
    name, remedy = "broker.eviction", "Set maxmemory-policy noeviction, and give a cache a Redis of its own."
    if policy == "noeviction":
        return ok(name, "maxmemory-policy is noeviction: a full Redis refuses messages, and senders keep them.")
    text = f"maxmemory-policy is {policy}"
    if not maxmemory:
        return warning(name, f"{text}; nothing is evicted only because maxmemory is not set.", remedy)
    if policy.startswith("volatile-"):
        return warning(
            name, f"{text}: a full Redis evicts the heartbeats of workers, and then refuses messages.", remedy
        )
    return problem(name, f"{text}: a full Redis throws away whole queues.", remedy)


def judge_quarantine(number: int, key: str) -> Finding:
    """Judge whether somebody has put items into a queue that are no messages.

    Args:
        number: of the items that are kept.
        key: the list in Redis that keeps them.
    """
    name = "broker.quarantine"
    if not number:
        return ok(name, "No item of a queue is in quarantine: all were messages.")
    text = f"{number} items of queues are in quarantine: they were no messages, and no worker runs them."
    remedy = f"See who writes to the broker: LRANGE {key} 0 -1 shows where each came from. Then delete the list."
    return warning(name, text, remedy)


def judge_persistence(*, aof: bool, fsync: str, written: bool, not_durable: Sequence[str]) -> Finding:
    """Judge what a restart of Redis loses.

    Args:
        aof: whether the append-only file is on.
        fsync: ``appendfsync``; empty if Redis does not tell.
        written: whether the last write to the file succeeded.
        not_durable: the signals with ``durable=False``, whose messages are only on the broker.
    """
    name, remedy = "broker.persistence", "Set appendonly yes and appendfsync everysec, or make these signals durable."
    if aof and not written:
        return problem(name, "Redis cannot write its append-only file.", "Look at its log, and at its disk.")
    if aof and fsync != "no":
        return ok(name, f"The append-only file is on{f' (appendfsync {fsync})' if fsync else ''}.")
    lost = "The append-only file is off" if not aof else "appendfsync is no"
    if not not_durable:
        return ok(name, f"{lost}; all signals are durable, and what Redis loses is published again from the ledger.")
    signals = ", ".join([*not_durable[:SHOWN], *(["…"] if len(not_durable) > SHOWN else [])])
    return warning(name, f"{lost}: a restart of Redis loses messages of {signals} (durable=False).", remedy)


def judge_visibility(visibility: float, longest: float, why: str) -> Finding:
    """Judge whether Redis redelivers a message while its receiver still runs.

    Args:
        visibility: seconds after which an unacknowledged message is redelivered.
        longest: seconds that a run may take.
        why: which setting or receiver says so.
    """
    name = "broker.visibility_timeout"
    text = f"A message is redelivered {visibility:g} s after a worker took it; a run may take {longest:g} s ({why})"
    if visibility > longest:
        return ok(name, f"{text}.")
    return problem(
        name,
        f"{text}: it then runs twice at a time.",
        f'Set CELERY_BROKER_TRANSPORT_OPTIONS = {{"visibility_timeout": …}} to more than {longest:g}.',
    )


def judge_clock(whose: str, ahead: float) -> Finding:
    """Judge the clock of the database or the broker against that of this machine.

    Args:
        whose: "database" or "broker".
        ahead: seconds that it is ahead of this machine's; negative if it is behind.
    """
    name = f"clock.{whose}"
    if abs(ahead) < DRIFT:
        return ok(name, f"The {whose}'s clock and this machine's agree within {DRIFT:g} s.")
    text = f"The {whose}'s clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    judge = problem if abs(ahead) >= MOST_DRIFT else warning
    return judge(
        name,
        f"{text}: what is sent for later is early or late by that.",
        "Let NTP (chrony, systemd-timesyncd) set the clocks of all machines.",
    )


def judge_answer(whose: str, error: str, remedy: str) -> Finding:
    """Report a database or a broker that did not answer.

    Args:
        whose: "database" or "broker".
        error: its error.
        remedy: what to look at.
    """
    return problem(f"{whose}.answers", f"The {whose} cannot be asked: {error}", remedy)

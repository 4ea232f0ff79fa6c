"""Judge the bus for a monitoring system: each limit that is given, and queues that nobody consumes.

Called by ``manage.py signalbus check``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING

from signalbus.broker.queue_status import Presence, ask_broker
from signalbus.ledger import operations as ledger
from signalbus.services.queries.queues import age_of, backlog_of, is_unattended, queues_of

if TYPE_CHECKING:
    from signalbus.ledger.operations import Backlog


class Level(IntEnum):
    """How bad it is; the values are the exit codes of Nagios' plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that hold; None: no limit.

    Args:
        oldest: how long the oldest waiting delivery of a queue may wait.
        dead: the number of dead deliveries that are allowed.
        parked: the number of parked deliveries that are allowed.
        workers: the number of workers that each queue must have.
    """

    oldest: timedelta | None = None
    dead: int | None = None
    parked: int | None = None
    workers: int | None = None


@dataclass(slots=True)
class Judgement:
    """The result of a check.

    Args:
        level: the worst of what was found.
        findings: what is wrong, in words.
        values: the measured values by name, for graphs.
    """

    level: Level = Level.OK
    findings: list[str] = field(default_factory=list)
    values: dict[str, int] = field(default_factory=dict)

    def add(self, level: Level, finding: str) -> None:
        """Add a finding; UNKNOWN counts less than CRITICAL, as Nagios has it."""
        self.findings.append(finding)
        order = (Level.OK, Level.WARNING, Level.UNKNOWN, Level.CRITICAL)
        self.level = max(self.level, level, key=order.index)


def judge(limits: Limits) -> Judgement:
    """Judge the ledger and the broker.

    Args:
        limits: the limits. A queue in which something waits and that no worker consumes is critical anyway.
    """
    judgement = Judgement()
    failures = ledger.failures()
    backlogs = ledger.backlogs()
    for name, count, most in (("dead", failures.dead, limits.dead), ("parked", failures.parked, limits.parked)):
        judgement.values[name] = count
        if most is not None and count > most:
            judgement.add(Level.CRITICAL, f"{count} {name}, {most} allowed")
    queues = queues_of(backlogs)
    present = ask_broker(queues)
    oldest = timedelta(0)
    for queue in queues:
        backlog = backlog_of(queue, backlogs)
        oldest = max(oldest, timedelta(0) if backlog.oldest is None else age_of(backlog.oldest))
        _judge_queue(judgement, queue, backlog, present[queue], limits)
    judgement.values |= {
        "waiting": sum(backlog_of(queue, backlogs).waiting for queue in queues),
        "oldest_seconds": int(oldest.total_seconds()),
    }
    return judgement


def _judge_queue(judgement: Judgement, queue: str, backlog: Backlog, presence: Presence, limits: Limits) -> None:
    if backlog.oldest is not None and limits.oldest is not None and age_of(backlog.oldest) > limits.oldest:
        age = int(age_of(backlog.oldest).total_seconds())
        judgement.add(Level.CRITICAL, f"{queue}: the oldest waits for {age} s")
    if presence.error:
        judgement.add(Level.UNKNOWN, f"{queue}: the broker cannot be asked: {presence.error}")
        return
    if presence.refused:
        judgement.add(Level.CRITICAL, f"{queue}: the broker refuses it as it is declared here")
    waits = bool(presence.waiting or backlog.waiting)
    if waits and is_unattended(presence, backlog):
        judgement.add(Level.CRITICAL, f"{queue}: {presence.waiting or 0} messages wait, and no worker consumes it")
    elif limits.workers and presence.workers is None:
        judgement.add(Level.UNKNOWN, f"{queue}: the broker cannot tell how many workers consume it")
    elif limits.workers and presence.workers is not None and presence.workers < limits.workers:
        judgement.add(Level.CRITICAL, f"{queue}: {presence.workers} of {limits.workers} workers")

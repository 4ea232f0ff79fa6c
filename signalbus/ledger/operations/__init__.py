"""The ledger's operations for people: list, retry and discard deliveries by hand, audit, and count what waits."""

from signalbus.ledger.attempts.held_rows import count_held, release_held
from signalbus.ledger.attempts.ordering import behind
from signalbus.ledger.base.clock import clock_of, in_utc
from signalbus.ledger.base.deliveries import CHUNK, using
from signalbus.ledger.base.missing_tables import missing
from signalbus.ledger.operations.backlog import Backlog, backlogs, failures
from signalbus.ledger.operations.failed_deliveries import discard, failed, retry, skipped
from signalbus.ledger.operations.ledger_audit import (
    Account,
    Audit,
    Evidence,
    audit,
    mark_now,
    proven,
    repair,
    undecided,
    waiting_queues,
)
from signalbus.ledger.sweeps.due import mark
from signalbus.ledger.sweeps.purging import purge

__all__ = [
    "CHUNK",
    "Account",
    "Audit",
    "Backlog",
    "Evidence",
    "audit",
    "backlogs",
    "behind",
    "clock_of",
    "count_held",
    "discard",
    "failed",
    "failures",
    "in_utc",
    "mark",
    "mark_now",
    "missing",
    "proven",
    "purge",
    "release_held",
    "repair",
    "retry",
    "skipped",
    "undecided",
    "using",
    "waiting_queues",
]

"""The ledger's functions for people: list, retry and discard deliveries, audit the ledger, and count what waits.

`management/`, `services/` and the system checks call them.
"""

from signalbus.ledger.attempts.held_rows import count_held, release_held, waits_for_release
from signalbus.ledger.attempts.ordering import behind
from signalbus.ledger.base.clock import clock_of, in_utc
from signalbus.ledger.base.deliveries import CHUNK, using
from signalbus.ledger.base.missing_tables import is_missing, missing
from signalbus.ledger.operations.backlog import Backlog, Failures, backlogs, failures, has_open, queues_in_ledger
from signalbus.ledger.operations.bulk_rows import (
    CHANGED,
    BulkKind,
    BulkOperation,
    add_bulk,
    bulk_operations,
    cancel_bulk,
    pause_bulk,
    resume_bulk,
    unfinished,
)
from signalbus.ledger.operations.bulk_steps import failed_again, step
from signalbus.ledger.operations.current_counts import SCHEDULED, CurrentCounts, current_counts
from signalbus.ledger.operations.failed_deliveries import discard, failed, retry, skipped
from signalbus.ledger.operations.health import (
    parked_texts,
    roots_recorded_since,
    seen_workers,
    sweeper_seen_at,
    unapplied_migrations,
)
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
from signalbus.ledger.operations.operation_log import LogEntry, add_to_log, complete_log, log_entries
from signalbus.ledger.operations.pause_changes import Paused, pause, pauses, resume
from signalbus.ledger.sweeps.due import mark
from signalbus.ledger.sweeps.purging import oldest_to_purge, purge

__all__ = [
    "CHANGED",
    "CHUNK",
    "SCHEDULED",
    "Account",
    "Audit",
    "Backlog",
    "BulkKind",
    "BulkOperation",
    "CurrentCounts",
    "Evidence",
    "Failures",
    "LogEntry",
    "Paused",
    "add_bulk",
    "add_to_log",
    "audit",
    "backlogs",
    "behind",
    "bulk_operations",
    "cancel_bulk",
    "clock_of",
    "complete_log",
    "count_held",
    "current_counts",
    "discard",
    "failed",
    "failed_again",
    "failures",
    "has_open",
    "in_utc",
    "is_missing",
    "log_entries",
    "mark",
    "mark_now",
    "missing",
    "oldest_to_purge",
    "parked_texts",
    "pause",
    "pause_bulk",
    "pauses",
    "proven",
    "purge",
    "queues_in_ledger",
    "release_held",
    "repair",
    "resume",
    "resume_bulk",
    "retry",
    "roots_recorded_since",
    "seen_workers",
    "skipped",
    "step",
    "sweeper_seen_at",
    "unapplied_migrations",
    "undecided",
    "unfinished",
    "using",
    "waiting_queues",
    "waits_for_release",
]

"""The ledger's functions for what is kept: outcomes over time, workers with what they run, and alerts."""

from signalbus.ledger.history.alerts import Condition, Notice, judge_alerts, keep_notice, open_alerts, unsent_notices
from signalbus.ledger.history.group_notes import KINDS, GroupNotes, group_notes, muted_groups, newest_release
from signalbus.ledger.history.rollups import (
    BOUNDS,
    OUTCOMES,
    Counts,
    Series,
    add_counts,
    last_work,
    merge_counts,
    outcome_totals,
)
from signalbus.ledger.history.workers import (
    forget_stale_workers,
    forget_worker,
    record_running,
    record_worker,
    see_worker,
    waits_for_receiver,
)

__all__ = [
    "BOUNDS",
    "KINDS",
    "OUTCOMES",
    "Condition",
    "Counts",
    "GroupNotes",
    "Notice",
    "Series",
    "add_counts",
    "forget_stale_workers",
    "forget_worker",
    "group_notes",
    "judge_alerts",
    "keep_notice",
    "last_work",
    "merge_counts",
    "muted_groups",
    "newest_release",
    "open_alerts",
    "outcome_totals",
    "record_running",
    "record_worker",
    "see_worker",
    "unsent_notices",
    "waits_for_receiver",
]

"""The ledger's functions for what is kept: outcomes over time, workers, and what they run."""

from signalbus.ledger.history.rollups import BOUNDS, Counts, Series, add_counts, merge_counts
from signalbus.ledger.history.workers import (
    forget_stale_workers,
    forget_worker,
    record_running,
    record_worker,
    see_worker,
)

__all__ = [
    "BOUNDS",
    "Counts",
    "Series",
    "add_counts",
    "forget_stale_workers",
    "forget_worker",
    "merge_counts",
    "record_running",
    "record_worker",
    "see_worker",
]

"""The ledger's functions for the sweeper: find the rows to publish, send markers, admit retries, and purge messages.

`receiving/sweeping` calls them, in one thread of each worker.
"""

from signalbus.ledger.attempts.parked_rows import bury, open_parked, postpone_row, unpark
from signalbus.ledger.attempts.pauses import pause_rows
from signalbus.ledger.base.deliveries import return_due, using
from signalbus.ledger.base.event_subjects import delivery_of_row
from signalbus.ledger.history import (
    forget_stale_workers,
    judge_alerts,
    keep_notice,
    merge_counts,
    open_alerts,
    unsent_notices,
)
from signalbus.ledger.sweeps.due import (
    Publishable,
    anything_due,
    look,
    mark,
    mark_requeued,
    marker_returned,
    recall,
    take_admitted,
    take_due,
)
from signalbus.ledger.sweeps.purging import acquire_purge_lease, purge, purge_keys, purge_log, purge_some
from signalbus.ledger.sweeps.releases import release_some
from signalbus.ledger.sweeps.retry_admission import Share

__all__ = [
    "Publishable",
    "Share",
    "acquire_purge_lease",
    "anything_due",
    "bury",
    "delivery_of_row",
    "forget_stale_workers",
    "judge_alerts",
    "keep_notice",
    "look",
    "mark",
    "mark_requeued",
    "marker_returned",
    "merge_counts",
    "open_alerts",
    "open_parked",
    "pause_rows",
    "postpone_row",
    "purge",
    "purge_keys",
    "purge_log",
    "purge_some",
    "recall",
    "release_some",
    "return_due",
    "take_admitted",
    "take_due",
    "unpark",
    "unsent_notices",
    "using",
]

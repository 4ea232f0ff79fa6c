"""The ledger's functions for an attempt: take or claim the row of a delivery, settle it, hold it, or park it.

`receiving/routing`, `receiving/running` and `receiving/settling` call them in a worker's processes.
"""

from signalbus.ledger.attempts.held_rows import hold_delivery
from signalbus.ledger.attempts.lost_attempts import LastRun, last_run, lost_claim, settle_lost
from signalbus.ledger.attempts.ordering import behind, head, wake
from signalbus.ledger.attempts.parked_rows import bury, open_parked, park, park_text, postpone_row, refuse, unpark
from signalbus.ledger.attempts.pauses import PauseRow, is_in_force, pause_rows
from signalbus.ledger.attempts.row_claims import (
    Taken,
    claim,
    clear_errors,
    confirm,
    settle_taken,
    supports_group_commit,
    take,
    take_together,
    tell_runtime,
    undo_take,
)
from signalbus.ledger.base.deliveries import (
    earlier_id,
    expand,
    record_deliveries,
    record_unpublished,
    release,
    renew,
    unclaim,
    using,
)
from signalbus.ledger.base.dialect import takes_several
from signalbus.ledger.base.event_subjects import delivery_of_text
from signalbus.ledger.base.sequence_numbers import order_of
from signalbus.ledger.base.settlements import Settlement, last_failure, record_settled, settle, skip

__all__ = [
    "LastRun",
    "PauseRow",
    "Settlement",
    "Taken",
    "behind",
    "bury",
    "claim",
    "clear_errors",
    "confirm",
    "delivery_of_text",
    "earlier_id",
    "expand",
    "head",
    "hold_delivery",
    "is_in_force",
    "last_failure",
    "last_run",
    "lost_claim",
    "open_parked",
    "order_of",
    "park",
    "park_text",
    "pause_rows",
    "postpone_row",
    "record_deliveries",
    "record_settled",
    "record_unpublished",
    "refuse",
    "release",
    "renew",
    "settle",
    "settle_lost",
    "settle_taken",
    "skip",
    "supports_group_commit",
    "take",
    "take_together",
    "takes_several",
    "tell_runtime",
    "unclaim",
    "undo_take",
    "unpark",
    "using",
    "wake",
]

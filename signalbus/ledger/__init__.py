"""The ledger: all reads and writes of the tables of messages and deliveries.

Only the database's clock decides which rows are due. Times that people read come from it as well.
"""

from signalbus.ledger.attempts.lost_rows import LastRun, last_run, lost_claim, settle_lost
from signalbus.ledger.attempts.ownership import (
    Taken,
    can_share,
    claim,
    confirm,
    settle_taken,
    take,
    take_back,
    take_together,
    tell_runtime,
)
from signalbus.ledger.attempts.parked_rows import bury, open_parked, park, park_text, postpone_row, refuse, unpark
from signalbus.ledger.attempts.turns import behind, head, wake
from signalbus.ledger.base.clock import clock_of, in_utc
from signalbus.ledger.base.deliveries import (
    Settlement,
    earlier_id,
    expand,
    give_back,
    keep,
    keep_settled,
    keep_unpublished,
    last_failure,
    release,
    renew,
    return_due,
    settle,
    skip,
    using,
)
from signalbus.ledger.base.dialect import takes_several
from signalbus.ledger.base.event_subjects import delivery_of_row, delivery_of_text
from signalbus.ledger.base.missing_tables import missing, reject_missing, reject_unmigrated
from signalbus.ledger.base.recording import Part, record
from signalbus.ledger.base.sequence_numbers import order_of
from signalbus.ledger.operations.accounts import (
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
from signalbus.ledger.operations.backlog import Backlog, backlogs, failures
from signalbus.ledger.operations.by_hand import discard, failed, retry, skipped
from signalbus.ledger.sends.due_later import cancel
from signalbus.ledger.sends.stand_ins import record_last_of_burst, record_unless_one_waits
from signalbus.ledger.sends.unsendable import keep_unsendable
from signalbus.ledger.sweeps.admission import Share
from signalbus.ledger.sweeps.due import (
    Publishable,
    anything_due,
    is_idle,
    mark,
    marker_returned,
    recall,
    take_admitted,
    take_due,
    wait_anew,
)
from signalbus.ledger.sweeps.purging import purge, purge_keys, purge_some, take_turn

__all__ = [
    "Account",
    "Audit",
    "Backlog",
    "Evidence",
    "LastRun",
    "Part",
    "Publishable",
    "Settlement",
    "Share",
    "Taken",
    "anything_due",
    "audit",
    "backlogs",
    "behind",
    "bury",
    "can_share",
    "cancel",
    "claim",
    "clock_of",
    "confirm",
    "delivery_of_row",
    "delivery_of_text",
    "discard",
    "earlier_id",
    "expand",
    "failed",
    "failures",
    "give_back",
    "head",
    "in_utc",
    "is_idle",
    "keep",
    "keep_settled",
    "keep_unpublished",
    "keep_unsendable",
    "last_failure",
    "last_run",
    "lost_claim",
    "mark",
    "mark_now",
    "marker_returned",
    "missing",
    "open_parked",
    "order_of",
    "park",
    "park_text",
    "postpone_row",
    "proven",
    "purge",
    "purge_keys",
    "purge_some",
    "recall",
    "record",
    "record_last_of_burst",
    "record_unless_one_waits",
    "refuse",
    "reject_missing",
    "reject_unmigrated",
    "release",
    "renew",
    "repair",
    "retry",
    "return_due",
    "settle",
    "settle_lost",
    "settle_taken",
    "skip",
    "skipped",
    "take",
    "take_admitted",
    "take_back",
    "take_due",
    "take_together",
    "take_turn",
    "takes_several",
    "tell_runtime",
    "undecided",
    "unpark",
    "using",
    "wait_anew",
    "waiting_queues",
    "wake",
]

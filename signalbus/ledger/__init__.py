"""What went wrong, or must not be forgotten: all reads and writes of the ledger's tables.

Only the database's clock decides what is due. Times that people read come from it as well.
"""

from signalbus.ledger.deliveries import (
    Settlement,
    earlier_id,
    expand,
    give_back,
    keep,
    keep_settled,
    keep_unpublished,
    release,
    renew,
    return_due,
    settle,
    skip,
    using,
)
from signalbus.ledger.due import anything_due, mark, marker_returned, take_due
from signalbus.ledger.later import cancel, postpone
from signalbus.ledger.mending import discard, failed, purge, retry, skipped
from signalbus.ledger.once import end_of_burst, purge_keys, stand_in
from signalbus.ledger.parking import bury, open_parked, park, park_text, postpone_row, refuse, unpark
from signalbus.ledger.recording import Part, record
from signalbus.ledger.taking import Taken, claim, confirm, take, tell_runtime
from signalbus.ledger.unsendable import keep_unsendable

__all__ = [
    "Part",
    "Settlement",
    "Taken",
    "anything_due",
    "bury",
    "cancel",
    "claim",
    "confirm",
    "discard",
    "earlier_id",
    "end_of_burst",
    "expand",
    "failed",
    "give_back",
    "keep",
    "keep_settled",
    "keep_unpublished",
    "keep_unsendable",
    "mark",
    "marker_returned",
    "open_parked",
    "park",
    "park_text",
    "postpone",
    "postpone_row",
    "purge",
    "purge_keys",
    "record",
    "refuse",
    "release",
    "renew",
    "retry",
    "return_due",
    "settle",
    "skip",
    "skipped",
    "stand_in",
    "take",
    "take_due",
    "tell_runtime",
    "unpark",
    "using",
]

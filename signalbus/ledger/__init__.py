"""What went wrong, or must not be forgotten: all reads and writes of the ledger's tables.

Only the database's clock decides what is due. Times that people read come from it as well.
"""

from signalbus.ledger.deliveries import (
    Settlement,
    expand,
    keep,
    keep_settled,
    keep_unpublished,
    release,
    renew,
    return_due,
    settle,
    using,
)
from signalbus.ledger.due import anything_due, mark, marker_returned, take_due
from signalbus.ledger.mending import discard, failed, purge, retry
from signalbus.ledger.parking import bury, open_parked, park, park_text, postpone_row, refuse, unpark
from signalbus.ledger.recording import Part, record
from signalbus.ledger.taking import Taken, claim, confirm, take, tell_runtime

__all__ = [
    "Part",
    "Settlement",
    "Taken",
    "anything_due",
    "bury",
    "claim",
    "confirm",
    "discard",
    "expand",
    "failed",
    "keep",
    "keep_settled",
    "keep_unpublished",
    "mark",
    "marker_returned",
    "open_parked",
    "park",
    "park_text",
    "postpone_row",
    "purge",
    "record",
    "refuse",
    "release",
    "renew",
    "retry",
    "return_due",
    "settle",
    "take",
    "take_due",
    "tell_runtime",
    "unpark",
    "using",
]

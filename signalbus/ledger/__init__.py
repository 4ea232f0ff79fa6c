"""What went wrong, or must not be forgotten: all reads and writes of the ledger's tables.

Only the database's clock decides what is due. Times that people read come from it as well.
"""

from signalbus.ledger.deliveries import (
    Settlement,
    anything_due,
    claim,
    expand,
    give_back,
    keep,
    keep_settled,
    keep_unpublished,
    release,
    return_due,
    settle,
    skip,
    take_due,
    using,
)
from signalbus.ledger.mending import discard, failed, purge, retry, skipped
from signalbus.ledger.parking import bury, open_parked, park, park_text, postpone_row, refuse, unpark
from signalbus.ledger.unsendable import keep_unsendable

__all__ = [
    "Settlement",
    "anything_due",
    "bury",
    "claim",
    "discard",
    "expand",
    "failed",
    "give_back",
    "keep",
    "keep_settled",
    "keep_unpublished",
    "keep_unsendable",
    "open_parked",
    "park",
    "park_text",
    "postpone_row",
    "purge",
    "refuse",
    "release",
    "retry",
    "return_due",
    "settle",
    "skip",
    "skipped",
    "take_due",
    "unpark",
    "using",
]

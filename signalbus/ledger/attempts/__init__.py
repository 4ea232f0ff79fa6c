"""The ledger's functions for an attempt: own the row of a delivery, keep the order of a key, park unknown messages."""

from signalbus.ledger.attempts.held_rows import hold_delivery
from signalbus.ledger.attempts.lost_rows import LastRun, last_run, lost_claim, settle_lost
from signalbus.ledger.attempts.ordering import behind, head, wake
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
from signalbus.ledger.base.deliveries import (
    Settlement,
    earlier_id,
    expand,
    give_back,
    record_settled,
    last_failure,
    record_deliveries,
    record_unpublished,
    release,
    renew,
    settle,
    skip,
    using,
)
from signalbus.ledger.base.dialect import takes_several
from signalbus.ledger.base.event_subjects import delivery_of_text
from signalbus.ledger.base.sequence_numbers import order_of

__all__ = [
    "LastRun",
    "Settlement",
    "Taken",
    "behind",
    "bury",
    "can_share",
    "claim",
    "confirm",
    "delivery_of_text",
    "earlier_id",
    "expand",
    "give_back",
    "head",
    "hold_delivery",
    "record_settled",
    "last_failure",
    "last_run",
    "lost_claim",
    "open_parked",
    "order_of",
    "park",
    "park_text",
    "postpone_row",
    "record_deliveries",
    "record_unpublished",
    "refuse",
    "release",
    "renew",
    "settle",
    "settle_lost",
    "settle_taken",
    "skip",
    "take",
    "take_back",
    "take_together",
    "takes_several",
    "tell_runtime",
    "unpark",
    "using",
    "wake",
]

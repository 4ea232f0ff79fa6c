"""The ledger's functions for `send()`: record, deduplicate and cancel messages, and record failed sends.

`sending/` calls them, in the transaction of the sender.
"""

from signalbus.ledger.base.deliveries import record_unpublished, using
from signalbus.ledger.base.missing_tables import reject_missing, reject_unmigrated
from signalbus.ledger.base.recording import Part, record
from signalbus.ledger.sends.cancellation import cancel
from signalbus.ledger.sends.duplicates import record_last_of_burst, record_unless_one_waits
from signalbus.ledger.sends.unsendable import record_unsendable

__all__ = [
    "Part",
    "cancel",
    "record",
    "record_last_of_burst",
    "record_unless_one_waits",
    "record_unpublished",
    "record_unsendable",
    "reject_missing",
    "reject_unmigrated",
    "using",
]

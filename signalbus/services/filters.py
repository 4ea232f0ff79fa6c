"""The language of filters, for commands, pages and other services.

It is read in `ledger/base`, because the sweeper reads the filters of operations too.
"""

from signalbus.ledger.base.delivery_filters import (
    MAX_CHARACTERS,
    Filter,
    FilterError,
    parse_filter,
    subject_from,
)

__all__ = ["MAX_CHARACTERS", "Filter", "FilterError", "parse_filter", "subject_from"]

"""Hand on the parser of filters, such as ``receiver:crm.*``, to commands, pages and other services.

The parser itself is `ledger/base/delivery_filters`, because the sweeper reads the filters of operations too.
"""

from signalbus.ledger.base.delivery_filters import (
    MAX_CHARACTERS,
    Filter,
    FilterError,
    parse_filter,
    subject_from,
)

__all__ = ["MAX_CHARACTERS", "Filter", "FilterError", "parse_filter", "subject_from"]

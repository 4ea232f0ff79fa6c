"""The ledger's functions for ``send()``: messages for later, deduplicated ones, and those that could not be sent."""

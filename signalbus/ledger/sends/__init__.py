"""The ledger as ``send()`` needs it: messages for later, deduplicated ones, and those that could not be sent."""

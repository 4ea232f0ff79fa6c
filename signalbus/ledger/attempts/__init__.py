"""The ledger's functions for an attempt: own the row of a delivery, keep the order of a key, park unknown messages."""

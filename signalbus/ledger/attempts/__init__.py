"""The ledger as an attempt needs it: take the row of a delivery, keep its turn, park what this worker does not know."""

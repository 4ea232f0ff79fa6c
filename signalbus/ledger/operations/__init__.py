"""The ledger's operations for people: list, retry and discard deliveries by hand, audit, and count what waits."""

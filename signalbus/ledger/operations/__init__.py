"""The ledger as people need it: list, retry and discard by hand, audit, and count what waits."""

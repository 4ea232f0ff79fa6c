"""The ledger's functions for the sweeper: find due rows, admit retries, and purge closed messages."""

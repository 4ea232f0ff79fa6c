"""The ledger as the sweeper needs it: find what is due, admit retries, and purge what is over."""

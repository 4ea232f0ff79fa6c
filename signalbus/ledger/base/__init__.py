"""The base of the ledger: the database's clock and dialect, and the rows of messages and deliveries."""

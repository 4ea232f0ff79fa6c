"""What all of the ledger is built on: the database's clock and dialect, and the rows of messages and deliveries."""

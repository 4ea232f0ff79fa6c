"""Running deliveries: ask the gates, take the delivery in the ledger, and run it alone or in a group commit."""

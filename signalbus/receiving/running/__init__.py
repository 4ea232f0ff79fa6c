"""Running deliveries: ask the gates, take the delivery in the ledger, and run it alone or in a group commit.

`receiving/routing` hands the deliveries over. The receiver is called by `receiving/invoking`; what the end of an
attempt means is decided in `receiving/settling`.
"""

"""The sweeper: publish the deliveries that are due or lost, and ask the queues for evidence in an audit.

The worker starts the sweeper's thread in its main process. Which rows are due or lost is decided in `ledger/sweeps`.
"""

"""Sending a signal: build the messages, record them in the ledger, and publish them after the commit."""

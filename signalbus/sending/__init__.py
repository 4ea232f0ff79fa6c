"""Sending a signal: build the messages, record them in the ledger, and publish them after the commit.

A host calls `signal.Signal`. The messages are handed to the queue by `broker/`, which knows no signals.
"""

"""Settling an attempt: decide what its end means, record that in the ledger, and log and announce it."""

"""Settling an attempt: decide what its end means, record that in the ledger, and log and announce it.

`receiving/running` calls it at the end of an attempt, and the sweeper for an attempt whose process was lost.
"""

"""The base of the ledger: the database's clock and dialect, and the functions that insert and update rows.

The other packages of the ledger use it; a function here is called from two of them or more.
"""

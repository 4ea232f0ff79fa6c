"""The ledger: all reads and writes of the tables of messages and deliveries.

Only the database's clock decides which rows are due. Times that people read come from it as well.

It has a package for each kind of caller: `sends`, `attempts`, `sweeps` and `operations`. They share `base`.
"""

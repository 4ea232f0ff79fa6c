"""The ledger: all reads and writes of the tables of messages and deliveries.

It has a package for each kind of caller: `sends` for ``send()``, `attempts` for the code that runs deliveries,
`sweeps` for the sweeper, and `operations` for commands and pages. They share `base`. Callers import the functions
from the package, not from its modules.

Only the database's clock decides which rows are due. Times that people read come from it as well.
"""

"""Invoking a receiver: load the rows of its payload, restore its context, and call it as the current delivery.

`receiving/running` calls it inside the transaction that it has opened.
"""

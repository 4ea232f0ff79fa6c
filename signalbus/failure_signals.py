"""Declare the plain Django signals `delivery_failed`, `delivery_dead` and `alert`, which workers send (decision 0042).

`receiving/settling/listeners` sends them in a worker's process when an attempt fails, or a delivery is dead. Both
carry ``delivery`` (a `signalbus.context.CurrentDelivery`) and ``error``, the exception; the sender is the signal's
name. `receiving/sweeping/history_maintenance` sends `alert` once when a condition that needs a person begins, and once
when it is over, in the transaction that records this: what a receiver writes to the ledger's database is committed with
it. It carries ``kind`` (as ``"dead"``), ``key`` (what it is about), ``level`` (``"error"`` or ``"warning"``), ``text``,
``url`` (of a page about it, or ``""``) and ``raised`` (a bool); the sender is the kind.
"""

from django.dispatch import Signal

delivery_failed: Signal = Signal()  # an attempt failed; the delivery will be tried again
delivery_dead: Signal = Signal()  # the last attempt failed: `manage.py signalbus failed` lists it
alert: Signal = Signal()  # a condition that needs a person has begun, or is over

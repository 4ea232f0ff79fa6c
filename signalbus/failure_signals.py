"""Declare the plain Django signals `delivery_failed` and `delivery_dead`, which workers send (decision 0042).

`receiving/settling/listeners` sends them in a worker's process when an attempt fails, or a delivery is dead. Both
carry ``delivery`` (a `signalbus.context.CurrentDelivery`) and ``error``, the exception; the sender is the signal's
name.
"""

from django.dispatch import Signal

delivery_failed: Signal = Signal()  # an attempt failed; the delivery will be tried again
delivery_dead: Signal = Signal()  # the last attempt failed: `manage.py signalbus failed` lists it

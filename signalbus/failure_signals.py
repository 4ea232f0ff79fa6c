"""Declare the plain Django signals that are sent in a worker's process when a delivery fails or dies (decision 0042).

Both carry ``delivery`` (a `signalbus.context.CurrentDelivery`) and ``error``, the exception; the sender is the signal's
name.
"""

from django.dispatch import Signal

delivery_failed: Signal = Signal()  # an attempt failed; the delivery will be tried again
delivery_dead: Signal = Signal()  # the last attempt failed: `manage.py signalbus failed` lists it

"""What workers announce: plain Django signals, sent in the worker's process.

Both carry ``delivery`` (a `signalbus.context.CurrentDelivery`) and ``error``, the exception; the sender is the signal's
name.
"""

from django.dispatch import Signal

delivery_failed: Signal = Signal()  # an attempt failed; the delivery will be tried again
delivery_dead: Signal = Signal()  # the last attempt failed: `manage.py signalbus failed` lists it

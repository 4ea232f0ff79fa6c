"""A signal for each incident."""

from signalbus import Signal

order_placed = Signal()  # to a receiver with a bug, and to one that succeeds
order_paid = Signal()  # to two that succeed
order_packed = Signal()  # to one that hangs at one order, and to one that succeeds
order_photographed = Signal()  # to one that ends its process at one order
order_discounted = Signal()  # to one that must not run with the payload that it gets
order_shipped = Signal()  # to one that is renamed

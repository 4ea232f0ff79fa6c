"""The signals of the tenants."""

from signalbus import Signal

invoiced = Signal()
listed = Signal(durable=False)  # a delivery of it has no row, unless it fails

"""The signal of all shapes, and the types that they register."""

from signalbus import Signal

from . import registered  # noqa: F401 - senders and workers import it

shaped = Signal()

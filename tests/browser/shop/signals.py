"""The signals of the incident."""

from signalbus import Signal

academy_opened = Signal()

"""Django signals that run out of process: after the commit, in Celery workers, retried, recorded and visible."""

from signalbus import codec
from signalbus.bridging.decorator import disconnect, receiver
from signalbus.context import current
from signalbus.events import Event, listen
from signalbus.exceptions import Reject, RetryLater, SignalBusError
from signalbus.failure_signals import alert, delivery_dead, delivery_failed
from signalbus.retry import Retry
from signalbus.sending.scheduling import cancel
from signalbus.sending.sent import Sent
from signalbus.sending.signal import Signal
from signalbus.wire.values.references import Snapshot

__version__ = "0.5.0"

__all__ = [
    "Event",
    "Reject",
    "Retry",
    "RetryLater",
    "Sent",
    "Signal",
    "SignalBusError",
    "Snapshot",
    "alert",
    "cancel",
    "codec",
    "current",
    "delivery_dead",
    "delivery_failed",
    "disconnect",
    "listen",
    "receiver",
]

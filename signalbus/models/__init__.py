"""The tables of the ledger, and the states of a delivery."""

from signalbus.models.history_tables import FailedAttempt, Rollup, RunningDelivery, WorkerRecord
from signalbus.models.message_tables import Delivery, Key, QueueState, StoredMessage
from signalbus.models.operation_tables import Alert, Operation, Pause
from signalbus.models.states import (
    CLOSED_STATES,
    DUE_STATES,
    LOOKED_UP_STATES,
    OPEN_STATES,
    TAKEN_STATES,
    WAITING_STATES,
    Facts,
    State,
)

__all__ = [
    "CLOSED_STATES",
    "DUE_STATES",
    "LOOKED_UP_STATES",
    "OPEN_STATES",
    "TAKEN_STATES",
    "WAITING_STATES",
    "Alert",
    "Delivery",
    "Facts",
    "FailedAttempt",
    "Key",
    "Operation",
    "Pause",
    "QueueState",
    "Rollup",
    "RunningDelivery",
    "State",
    "StoredMessage",
    "WorkerRecord",
]

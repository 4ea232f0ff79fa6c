"""Record attempts whose process was lost: each is a failed attempt, with a reason and a delay (decision 0044).

Three parts of a worker find such an attempt. The main process of a prefork pool learns of a lost child, and knows
which delivery it ran (`worker/request`). A worker that receives a redelivered message finds the claim of the lost
worker (`running/attempt`). The sweeper finds claims that are overdue. An unclaimed run whose whole worker was lost is
not counted, because it may never have begun: the delivery bears `WORKER_LOST` until its next run has ended.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from signalbus import conf
from signalbus.core.error_groups import group_of
from signalbus.events import Event, is_heard
from signalbus.exceptions import SignalBusError, TextError
from signalbus.ledger import attempts as ledger
from signalbus.ledger.attempts import Settlement
from signalbus.models import State
from signalbus.receiving.invoking.invocation import Attempt
from signalbus.receiving.process.worker_events import tell
from signalbus.registration.registry import registry
from signalbus.wire.message import delivery_id, from_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.events import Kind
    from signalbus.ledger.attempts import LastRun
    from signalbus.models import Delivery
    from signalbus.registration.registry import Receiver
    from signalbus.wire.message import Message

    IsHeld = Callable[[Message, Receiver], bool]

# The error of a delivery whose message was redelivered, until it has run again.
WORKER_LOST = "a worker that had taken it was lost, perhaps while it ran; that run is not counted"
PATIENCE = 2.0  # seconds for a database to notice that a process is gone, and to free the row that it had locked
AGAIN = 0.05  # seconds between two looks at a row that is locked


def _is_never_held(_message: Message, _receiver: Receiver) -> bool:
    return False


@dataclass(slots=True)
class Loss:
    """A child of the pool that was lost while it ran a delivery.

    Args:
        text: the message's signed text.
        place: the index of the recipient that it ran; None if the message has one recipient only.
        worker: the child's name in the ledger.
        reason: how the child ended.
        requeue: requeues the Celery message.
        acknowledge: acknowledges the Celery message; None if it holds other texts as well.
    """

    text: str
    place: int | None
    worker: str
    reason: str
    requeue: Callable[[], object]
    acknowledge: Callable[[], object] | None = None
    deadline: float = field(default_factory=lambda: time.monotonic() + PATIENCE)
    is_needed: bool = True  # the message: it has not been settled, or holds other deliveries

    def end(self) -> None:
        """Give the message back, or acknowledge it if it holds nothing but the delivery that was settled.

        Such a message, redelivered beside the retry, could find the retry's claim, and end it without its reason.
        """
        if self.acknowledge is not None and not self.is_needed:
            self.acknowledge()
        else:
            self.requeue()

    def is_settled(self, is_held: IsHeld = _is_never_held) -> bool:
        """Record the attempt as failed; return False while the row is still locked.

        Args:
            is_held: whether a gate holds a delivery now.
        """
        attempt = self._attempt()
        if attempt is None:
            return True  # the message goes back to the broker, as that of a worker that was lost as a whole
        # A claimed one is the head of a key, whose message is another one.
        is_whole_message = self.place is None and not attempt.claimed
        run, error = ledger.last_run(attempt.id), SignalBusError(f"its process was lost: {self.reason}")
        if (run is None or run.state != State.RUNNING) and is_held(attempt.message, attempt.receiver):
            return True  # its process may have been about to hold it, as will the one that gets the message now
        if run is None and not attempt.recorded:
            settlement = _conclude(attempt, error, self.worker)
            queue = attempt.receiver.queue
            ledger.record_settled(attempt.message, attempt.recipient, queue, settlement, suspect=True)
            _tell(attempt, error, settlement, self.worker)
            self.is_needed = not is_whole_message
            return True
        if run is None or not self._was_here(run, attempt):
            return True
        if _settle(attempt, run, error, self.worker):
            self.is_needed = not is_whole_message
            return True
        return time.monotonic() > self.deadline

    def _was_here(self, run: LastRun, attempt: Attempt) -> bool:
        """Return whether the lost child is the last one that ran the delivery, with or without a claim."""
        if run.state == State.RUNNING:
            return run.worker == self.worker
        return run.state == State.PUBLISHED and not attempt.claimed

    def _attempt(self) -> Attempt | None:
        """Return the attempt that the child made; None if that is not known."""
        try:
            message = from_body(conf.signer().verify(self.text))
            recipients = message.recipients or ()
            if len(recipients) <= (self.place or 0) or (self.place is None and len(recipients) > 1):
                return None
            recipient = recipients[self.place or 0]
            head = ledger.head(ledger.order_of(message, recipient)) if message.is_ordered else None
            # The head of the key is claimed before it runs, unless it is the received message itself.
            claimed = head is not None and head.id != delivery_id(message.id, recipient)
            if head is not None and claimed:
                message = from_body(head.text).for_recipients([recipient], recorded=True)
        except (TextError, TypeError):
            return None
        receiver = _receiver(message, recipient)
        if receiver is None:
            return None
        return Attempt(message, recipient, receiver, recorded=message.recorded, claimed=claimed)


class Losses:
    """The lost children of a pool whose attempts the sweeper's thread will record: the event loop must not wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Loss] = deque()
        self._wake: Callable[[], object] | None = None

    def open(self, wake: Callable[[], object]) -> None:
        """Accept losses from now on.

        Args:
            wake: wakes the thread that records them.
        """
        with self._lock:
            self._wake = wake

    def close(self) -> None:
        """Accept no more losses, and requeue the messages of those that are left."""
        with self._lock:
            self._wake = None
        while self._waiting:
            self._waiting.popleft().requeue()

    def add(self, loss: Loss) -> bool:
        """Have a loss recorded and its message requeued; return False if no sweeper runs in this process."""
        with self._lock:
            if self._wake is None:
                return False
            self._waiting.append(loss)
            self._wake()
            return True

    def settle(self, is_held: IsHeld = _is_never_held) -> float | None:
        """Record the lost attempts, and give their messages back, or acknowledge them.

        Args:
            is_held: whether a gate holds a delivery now; then it is not counted, unless it was claimed.

        Returns:
            In how many seconds to look again, or None if nothing is left.

        Raises:
            DatabaseError: the ledger could not be reached; the message was requeued all the same.
        """
        for _ in range(len(self._waiting)):
            loss = self._waiting.popleft()
            settled = True
            try:
                settled = loss.is_settled(is_held)
            finally:
                if settled:
                    loss.end()
                else:
                    self._waiting.append(loss)
        return AGAIN if self._waiting else None


losses: Losses = Losses()  # of this process


def settle_redelivered(attempt: Attempt) -> bool:
    """Record the claimed run of a lost worker, whose message the broker has redelivered.

    Args:
        attempt: the attempt for which the delivery could not be claimed.

    Returns:
        False if its worker may still run it.
    """
    # The receiver's transaction would hold the row; without one, only the lease tells that its process is gone.
    run = ledger.lost_claim(attempt.id, overdue=not attempt.receiver.atomic)
    return run is not None and _settle(attempt, run, _worker_lost(run), run.worker)


def settle_overdue(row: Delivery, message: Message) -> bool:
    """Record a claimed run whose lease is over.

    Args:
        row: the delivery's row, as the sweeper took it.
        message: its message.

    Returns:
        False if its receiver is not known here: a worker that knows it decides.
    """
    receiver = _receiver(message, row.receiver)
    if receiver is None:
        return False
    run = ledger.LastRun(State.RUNNING, row.attempts, row.allowance, row.worker)
    _settle(Attempt(message, row.receiver, receiver, row=row.pk), run, _worker_lost(run), run.worker)
    return True


def _worker_lost(run: LastRun) -> SignalBusError:
    return SignalBusError(f"its worker was lost in attempt {run.attempts}")


def _receiver(message: Message, recipient: str) -> Receiver | None:
    signal = registry.signal(message.signal)
    return None if signal is None else signal.find(recipient, message.sender)


def _settle(attempt: Attempt, run: LastRun, error: SignalBusError, worker: str) -> bool:
    """Record a lost run; return False if the row is locked, or another worker has run the delivery since."""
    number = run.attempts if run.state == State.RUNNING else run.attempts + 1
    attempt.count(ledger.Taken(number, run.allowance, 0))
    settlement = _conclude(attempt, error, worker)
    settled = ledger.settle_lost(attempt.id, settlement, seen=run.attempts, attempt=number)
    if settled:
        _tell(attempt, error, settlement, worker)
    return settled


def _conclude(attempt: Attempt, error: SignalBusError, worker: str) -> Settlement:
    """Decide what follows a lost run, by the receiver's policy."""
    spread = random.random()  # noqa: S311 - spreads retries; guards nothing
    delay = attempt.receiver.retry.delay(attempt.number - attempt.since, spread=spread)
    state = State.DEAD if delay is None else State.PENDING
    return Settlement(
        state=state,
        error=str(error),
        delay=delay or 0.0,
        error_group=group_of(error, attempt.recipient),
        worker=worker,
        was_lost=True,
    )


def _tell(attempt: Attempt, error: SignalBusError, settlement: Settlement, worker: str) -> None:
    kind: Kind = "dead" if settlement.state == State.DEAD else "failed"
    if is_heard(kind):
        tell(Event(kind, attempt.delivery, error, settlement.delay, None, worker, attempt.receiver))

"""Call the receiver of an attempt: decode its arguments with fresh rows, restore its context, emit `started`.

`running/attempt` and `running/group_commit` call `call_receiver`. `Attempt`, one run of a delivery, is defined here
and used by `running/` and `settling/`.
"""

from __future__ import annotations

import decimal
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from signalbus import events, tracing
from signalbus.carriers import carrying
from signalbus.compat.django_internals import opened_connections
from signalbus.context import current_delivery, delivery_of
from signalbus.contracts.contract import reject_unknown_version
from signalbus.events import Event, is_heard
from signalbus.exceptions import SignalBusError, UnknownClass, UnknownPayloadVersion
from signalbus.receiving.invoking.carried_context import call_in_context
from signalbus.receiving.invoking.row_loading import payload_for
from signalbus.receiving.invoking.runner import call, explain_refused_call
from signalbus.receiving.process.current_runs import current_runs
from signalbus.receiving.process.query_cancellation import cancel_queries
from signalbus.receiving.process.session_state import has_schemas, restored_schemas
from signalbus.receiving.process.worker_events import tell, worker_name
from signalbus.registration.registry import registry
from signalbus.wire.message import delivery_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from django.db.backends.base.base import BaseDatabaseWrapper

    from signalbus.context import CurrentDelivery
    from signalbus.events import Kind
    from signalbus.ledger import attempts as ledger
    from signalbus.registration.registry import Receiver
    from signalbus.transport.progress import Progress
    from signalbus.wire.message import Message


class NotKnownHere(SignalBusError):  # noqa: N818 - says what happened
    """The message names a model or class that this worker does not have, such as one of the next release."""


@dataclass(slots=True)
class Attempt:
    """One run of a delivery.

    Args:
        message: what is delivered.
        recipient: the receiver's id, as the message has it.
        receiver: the receiver.
        recorded: it has a row in the ledger.
        number: 1 for the first.
        since: attempts made before the last retry by hand; the policy counts from there.
        claimed: its number was committed before it runs.
        text: the index of its message among the texts of its Celery message.
        row: the delivery's id, once it has been computed.
        recipient_progress: the progress of the recipients of its message; None if it has one recipient.
        place: the index of its recipient among those.
        took: seconds that its receiver ran; None while it did not.
    """

    message: Message
    recipient: str
    receiver: Receiver
    recorded: bool = False
    number: int = 1
    since: int = 0
    claimed: bool = False
    text: int = 0
    row: UUID | None = None
    recipient_progress: Progress | None = None
    place: int = 0
    took: float | None = None
    _delivery: CurrentDelivery | None = None

    @property
    def delivery(self) -> CurrentDelivery:
        """The delivery, as its receiver and listeners see it."""
        if self._delivery is None or self._delivery.attempt != self.number:
            self._delivery = delivery_of(self.message, self.recipient, self.number)
        return self._delivery

    @property
    def id(self) -> UUID:
        """The delivery's id, computed when it is first needed."""
        if self.row is None:
            self.row = delivery_id(self.message.id, self.recipient)
        return self.row

    @property
    def is_spent(self) -> bool:
        """Whether its number is above the receiver's `max_attempts`, so that it must not be made."""
        return self.number - self.since > self.receiver.retry.max_attempts

    def count(self, taken: ledger.Taken, *, claimed: bool = False) -> None:
        """Take over the attempt's number from the row, which counts it."""
        self.number, self.since, self.claimed = taken.attempt, taken.allowance, claimed
        self.took = None

    def tell(self, kind: Kind, error: BaseException | None = None, delay: float = 0.0) -> None:
        """Emit an event of this attempt, if its kind has a listener; call it after the commit that made it true.

        Args:
            kind: what happened.
            error: what was raised, or why.
            delay: seconds until the delivery is due again.
        """
        if is_heard(kind):
            tell(Event(kind, self.delivery, error, delay, self.took, worker_name(), self.receiver))


def call_receiver(attempt: Attempt) -> None:
    """Emit ``started``, load the rows, and call the receiver as the current delivery, with its own decimal context."""
    if is_heard("started"):
        _tell_started(attempt)
    if tracing.tracers:
        with tracing.processing(attempt.delivery, attempt.message):
            invoke(attempt)
    else:
        invoke(attempt)


def invoke(attempt: Attempt) -> None:
    """Load the rows, and call the receiver; emit no event.

    Args:
        attempt: the attempt.
    """
    own_decimal_context()
    if has_schemas():
        with restored_schemas():
            _call_in_context(attempt)
    else:
        _call_in_context(attempt)


def _tell_started(attempt: Attempt) -> None:
    """Emit `started`; refuse queries of listeners, which would be part of the receiver's transaction."""
    with ExitStack() as stack:
        for connection in opened_connections():
            if connection.in_atomic_block:
                stack.enter_context(_without_queries(connection))
        # Not as other events: the receiver's session is ended after its run.
        events.tell(Event("started", attempt.delivery, worker=worker_name(), receiver=attempt.receiver))


@contextmanager
def _without_queries(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Refuse queries inside the block; the transaction is as before, since none has reached the database."""
    is_broken = connection.needs_rollback
    connection.execute_wrappers.insert(0, _refuse_query)
    try:
        yield
    finally:
        connection.execute_wrappers.remove(_refuse_query)
        connection.needs_rollback = is_broken  # the ORM has marked it where a query was refused


def _refuse_query(*_statement: object) -> NoReturn:
    raise SignalBusError(
        'A listener of "started" runs in the transaction of the receiver, and must not query its database: listen to '
        '"done" and "failed", which come after the commit, or note what you need in memory.'
    )


def _call_in_context(attempt: Attempt) -> None:
    delivery, context = attempt.delivery, attempt.message.context
    former = current_runs.begin(delivery)
    token = current_delivery.set(delivery)
    try:
        if not context:
            _call_receiver(attempt)
            return
        try:
            carrying.reject_unknown(context)
        except UnknownClass as error:
            raise NotKnownHere(str(error)) from error
        call_in_context(context, _call_receiver, attempt)
    finally:
        current_delivery.reset(token)
        current_runs.end(former)


def own_decimal_context() -> None:
    """Give the current context a decimal context of its own: a copied context holds the very same object."""
    decimal.setcontext(decimal.getcontext().copy())


def _call_receiver(attempt: Attempt) -> None:
    receiver = attempt.receiver
    function = receiver.function()
    if function is None:
        raise SignalBusError(f"the receiver {receiver.id} has been garbage-collected: connect it with weak=False")
    arguments = _arguments(receiver, attempt.message)
    try:
        call(function, arguments, is_async=receiver.is_async, timeout=receiver.timeout)
    except BaseException as error:
        if isinstance(error, TypeError):
            explain_refused_call(error, function, arguments)
        if isinstance(error, MemoryError):
            # The receiver's objects would take the memory that recording its failure needs.
            traceback.clear_frames(error.__traceback__)
        cancel_queries()  # otherwise the end of the transaction would close a connection in mid-query
        raise


def _arguments(receiver: Receiver, message: Message) -> dict[str, Any]:
    """Decode a message into a receiver's arguments, its rows as they are now, its payload of this code's version."""
    signal = registry.signal(message.signal)
    contract = None if signal is None else signal.contract
    try:
        if message.payload_version != 1:
            reject_unknown_version(contract, message.payload_version)  # before a row is loaded
        sender, payload = payload_for(receiver, message.payload)
        if contract is not None:
            payload = contract.bring_up(payload, message.payload_version)
    except (UnknownClass, UnknownPayloadVersion) as error:
        raise NotKnownHere(str(error)) from error
    payload["signal"], payload["sender"] = None if signal is None else signal.presented, sender
    return payload

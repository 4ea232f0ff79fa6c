"""Resolve a message's recipients to receivers of this process, and deliver the message to each of them.

`batch` calls it. Deliveries to a signal or receiver that this worker does not know are parked (decision 0003). A
delivery that runs alone goes to `receiving/running/attempt`, a short one to the batch's group commit.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from signalbus.broker import publisher
from signalbus.context import delivery_of
from signalbus.events import Event, is_heard
from signalbus.exceptions import SignalBusError
from signalbus.ledger import attempts as ledger
from signalbus.receiving.process import task_log
from signalbus.receiving.process.worker_events import tell, worker_name
from signalbus.receiving.routing.text_requeueing import requeue_for
from signalbus.receiving.running.attempt import deliver_one
from signalbus.receiving.settling.lost_processes import WORKER_LOST
from signalbus.receiving.settling.parking import park
from signalbus.registration.registry import registry
from signalbus.wire.message import delivery_id, to_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.receiving.running.grouping import Group
    from signalbus.registration.registry import Receiver
    from signalbus.wire.message import Message


def deliver_message(  # noqa: PLR0913 - what the Celery message and its batch say
    message: Message, queue: str | None, deadline: float, group: Group, *, redelivered: bool, alone: bool
) -> None:
    signal = registry.signal(message.signal)
    if signal is None:
        park(message, message.recipients or ("",), queue, f"this worker does not know the signal {message.signal!r}")
        return
    if message.recipients is None:
        receivers = signal.matching(message.sender)
        if receivers and not (message.recorded or redelivered):
            _deliver_found(message, receivers, queue, deadline, group)
        else:
            _expand(message, receivers, queue)
        return
    known = _known(signal, message, message.recipients, queue)
    lone = alone and len(known) == 1
    if redelivered and not lone:
        _set_apart(message, list(known), queue)
        return
    if redelivered and not message.recorded:
        for recipient, receiver in known.items():
            ledger.record_deliveries(message, [recipient], receiver.queue)
    if len(known) == 1:
        ((recipient, receiver),) = known.items()
        if redelivered or lone or not group.add(message, recipient, receiver):
            deliver_one(message, recipient, receiver, redelivered=redelivered)
    elif known:
        _deliver_each(message, known, queue, deadline, group)


def _deliver_each(
    message: Message, known: dict[str, Receiver], queue: str | None, deadline: float, group: Group
) -> None:
    """Deliver a message to several receivers in order; requeue it for those that wait too long behind one of them."""
    recipients = message.recipients or ()
    indexes = {recipient: place for place, recipient in enumerate(recipients) if recipient in known}
    recipient_progress = group.divide(len(recipients))
    recipient_progress.end(*(set(range(len(recipients))) - set(indexes.values())))
    for index, (recipient, receiver) in enumerate(known.items()):
        over = index > 0 and time.monotonic() > deadline
        rest = list(known)[index:] if over else [recipient]
        if not recipient_progress.begin(*(indexes[each] for each in rest)):
            return  # the deliveries that have not begun were requeued
        if over:
            if requeue_for(message, rest, queue):
                recipient_progress.end(*(indexes[each] for each in rest))
                return
            recipient_progress.put_off(*(indexes[each] for each in rest[1:]))
        if group.add(message, recipient, receiver, indexes[recipient]):
            recipient_progress.put_off(indexes[recipient])
        else:
            deliver_one(message, recipient, receiver, redelivered=False)
            recipient_progress.end(indexes[recipient])


def _known(signal: Any, message: Message, recipients: Sequence[str], queue: str | None) -> dict[str, Receiver]:
    """Return the receivers that a message names, and park its deliveries to unknown ones."""
    known = {}
    unknown = []
    for recipient in recipients:
        receiver = signal.find(recipient, message.sender)
        if receiver is None:
            unknown.append(recipient)
        else:
            known[recipient] = receiver
    if unknown:
        names = ", ".join(unknown)
        park(message, unknown, queue, f"this worker does not know the receiver {names} of {message.signal}")
    return known


def _set_apart(message: Message, recipients: Sequence[str], queue: str | None) -> None:
    """Let the sweeper publish each delivery of a lost batch alone, because one of them may have ended its worker."""
    for recipient in recipients:
        task_log.note(message.signal, recipient, task_log.ALONE)
    if message.recorded:
        ledger.release([delivery_id(message.id, recipient) for recipient in recipients], note=WORKER_LOST)
    else:
        ledger.record_deliveries(message, recipients, queue, note=WORKER_LOST)


def _expand(message: Message, receivers: Sequence[Receiver], queue: str | None) -> None:
    """Replace the delivery of an open message by one for each receiver that is resolved here."""
    if not receivers:
        nobody = SignalBusError("no receiver listens to it here: deploy one, then retry the delivery")
        if ledger.skip(message, queue, str(nobody)):
            tell(Event("skipped", delivery_of(message, "", 0), nobody, worker=worker_name()))
        return
    for receiver in receivers:
        task_log.note(message.signal, receiver.id, task_log.ALONE)
    if ledger.expand(message, [(receiver.id, receiver.queue or queue) for receiver in receivers]):
        tell(Event("done", delivery_of(message, "", 0), worker=worker_name()))


def _deliver_found(
    message: Message, receivers: Sequence[Receiver], queue: str | None, deadline: float, group: Group
) -> None:
    """Deliver an open message without rows to the receivers of this queue, and publish it for those of other queues."""
    here = {receiver.id: receiver for receiver in receivers if receiver.queue in {None, queue}}
    for receiver in receivers:
        if receiver.id not in here:
            task_log.note(message.signal, receiver.id, f"sent on to the queue {receiver.queue}")
            _send_on(message.for_recipients([receiver.id]), receiver)
    if len(here) == 1:
        ((recipient, receiver),) = here.items()
        deliver_one(message.for_recipients([recipient]), recipient, receiver, redelivered=False)
    elif here:
        # All of them, in this order: the main process, which may requeue some, finds the same.
        named = message.for_recipients([receiver.id for receiver in receivers])
        _deliver_each(named, here, queue, deadline, group)


def _send_on(part: Message, receiver: Receiver) -> None:
    """Publish a message for one receiver to that receiver's queue."""
    try:
        publisher.publish(receiver.queue, [to_body(part)])
    except publisher.PublishError as error:
        ledger.record_unpublished([(part, receiver.queue)], str(error), error)
    else:
        if is_heard("published"):
            tell(Event("published", delivery_of(part, receiver.id, 0), worker=worker_name()))

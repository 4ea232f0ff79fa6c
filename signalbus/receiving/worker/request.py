"""Rebuild a Celery message for our task as a flat request, in the main process, before a child gets it (decision 0012).

A writer to the broker chooses everything in such a message. Celery hands it to a child unchanged: arguments or
headers nested a few hundred deep end the main process when they are pickled, and so does a message without an id.
Celery calls `strategy` with each message, and the request when its child ends or is lost; then the loss is handed to
`settling/lost_processes`.
"""

from __future__ import annotations

import reprlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.app.task import Context
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request
from celery.worker.strategy import default

from signalbus import celery
from signalbus.compat.pool_internals import cause_of_loss
from signalbus.receiving.process import interruption, task_log
from signalbus.receiving.process.worker_events import worker_name
from signalbus.receiving.settling.lost_processes import Loss, losses
from signalbus.receiving.sweeping.idleness import idleness
from signalbus.receiving.worker import stragglers
from signalbus.receiving.worker.unacknowledged import forget_if_lost
from signalbus.transport import batching
from signalbus.transport import claimed_message as queued
from signalbus.wire.unverified_text import has_several_recipients

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery, Task
    from kombu.message import Message

    from signalbus.transport.progress import Sheet

MALFORMED = (AttributeError, KeyError, LookupError, OverflowError, TypeError, ValueError)
TEXT = frozenset({str})
SCALARS = frozenset({str, int, float, bool, type(None)})
IDS = frozenset({"id", "root_id", "parent_id"})
# Headers with a meaning to Celery: limits, ETA and expiry, callbacks, results.
NOT_OURS = frozenset(vars(Context)) - IDS
ORIGIN = ("exchange", "routing_key", "redelivered")


def strategy(task: Task[Any, Any], app: Celery, consumer: Any, **options: Any) -> Callable[..., object]:
    """Return the function that a worker calls with each message for our task: Celery's own, behind a check of the body.

    Args:
        task: our task.
        app: the worker's app.
        consumer: the worker's consumer.
        options: Celery's options.
    """
    handle = default(task, app, consumer, **options)

    def take(message: Message, body: object, *args: Any, **named: Any) -> object:
        try:
            payload = message.payload
        except MALFORMED as error:
            raise InvalidTaskError(f"not a message for {celery.TASK_NAME!r}: {error!r}") from error
        if not isinstance(payload, (list, tuple, dict)):
            # Celery looks for "args" in it, whatever it is; a number ends the worker.
            raise InvalidTaskError(f"a body is a list or a mapping, not a {type(payload).__name__}")
        task_log.about(payload)
        return handle(forget_if_lost(message), body, *args, **named)

    return take


def _has_several(texts: list[str]) -> bool:
    """Return whether one delivery of a message may wait behind another."""
    return len(texts) > 1 or has_several_recipients(texts[0])


class DeliverRequest(Request):
    """A request to deliver texts: an id, one list of texts, and nothing else that could do harm.

    It replaces private parts of Celery, which has no other way to change the data that a child gets: the body that the
    pool sends, the dict beside it, the arguments that are logged and that the solo pool runs. If Celery renamed them,
    children would get a writer's message unchanged. (Not in ``signalbus.compat``: senders would import the class.)

    Args:
        message: the Celery message.
        headers: the headers of the protocol's second version, if the message has another version.
        options: Celery's options.

    Raises:
        InvalidTaskError: a message without the parts of one; Celery logs and drops it.
    """

    _args: Any
    _body: Any
    _kwargs: Any
    _payload: Any
    _delivery_info: dict[str, Any]
    _request_dict: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap `on_success` of Celery's subclass, to learn the run time of requests."""
        super().__init_subclass__(**options)
        succeeded = cls.on_success

        def on_success(self: DeliverRequest, failed__retval__runtime: tuple[Any, Any, float], **more: Any) -> Any:
            failed, _, runtime = failed__retval__runtime
            if not failed:
                self._learn(runtime)
            try:
                return succeeded(self, failed__retval__runtime, **more)
            finally:
                idleness.request_ended()

        setattr(cls, "on_success", on_success)  # noqa: B010 - else checkers take it for another declaration

    def __init__(self, message: Message, headers: dict[str, Any] | None = None, **options: Any) -> None:
        try:
            given = message.headers if headers is None else headers
            accepted = {name: value for name, value in given.items() if type(value) in SCALARS and name not in NOT_OURS}
            super().__init__(message, headers=accepted, **options)
        except MALFORMED as error:
            raise InvalidTaskError(f"not a message for {celery.TASK_NAME!r}: {error!r}") from error
        if not isinstance(self.id, str):
            raise InvalidTaskError(f"a message's id is a text, not {reprlib.repr(self.id)}")
        if not self._is_flat():
            # The child refuses it, and quarantines this description as a dead letter.
            self._args = [[reprlib.repr((self._args, self._kwargs))]]
        # Another serializer may have made a tuple of it.
        self._args = [list(self._args[0])]
        self._kwargs = {}
        # As arguments, not as a text that the child would parse again; without callbacks, chains and chords, which
        # are not ours: any writer to the broker may have added them.
        self._body = self._payload = (self._args, {}, {})
        self._content_type = self._content_encoding = None
        info = self._delivery_info
        self._request_dict = {
            **accepted,
            "correlation_id": self.id,
            "reply_to": None,  # no sender waits for an answer
            "hostname": self._request_dict["hostname"],
            "delivery_info": {name: info[name] for name in ORIGIN if type(info[name]) in SCALARS},
            "ignore_result": True,
            "headers": {},  # else Celery would look for custom ones among ours
        }
        routing_key = info["routing_key"]
        self._queue = routing_key if isinstance(routing_key, str) else ""
        self._sheet = self._watched(message)
        if self._sheet is not None:
            self._request_dict["delivery_info"]["ticket"] = self._sheet.ticket

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Record a lost run as a failed attempt before the message is requeued or acknowledged; Celery's name.

        Not once the worker shuts down: that is no attempt, and the sweeper, which records it, may have stopped.
        """
        requeue = partial(super().on_failure, exc_info, send_failed_event, return_ok)
        reason = cause_of_loss(exc_info)
        if reason is not None and not interruption.has_begun():
            loss = self._loss(reason, requeue)
            if loss is not None and losses.add(loss):
                return None
        return requeue()

    def _loss(self, reason: str, requeue: Callable[[], object]) -> Loss | None:
        """Return the run that the lost child had begun; None if it is unknown which of a batch that was."""
        texts, sheet = self._args[0], self._sheet
        pid: Any = self.worker_pid  # its stubs call it a text
        running = sheet.running() if sheet is not None else (0, None) if len(texts) == 1 else None
        if running is None or pid is None:
            return None
        text, place = running

        def acknowledge() -> None:
            self.acknowledge()
            requeue()  # logs the loss, and requeues nothing that is acknowledged

        return Loss(texts[text], place, worker_name(pid), reason, requeue, acknowledge if len(texts) == 1 else None)

    def _watched(self, message: Message) -> Sheet | None:
        """Watch a batch for stragglers, if the transport can divide its message."""
        texts = self._args[0]
        if not isinstance(message, queued.ClaimedMessage) or not message.texts or not _has_several(texts):
            return None
        sheet = stragglers.watch(message, texts, self._queue)
        message.sheet = sheet
        return sheet

    def _learn(self, runtime: float) -> None:
        """Learn the run time of the texts: of all, or, if the batch was divided, of the straggler alone."""
        sheet = self._sheet
        if sheet is not None and sheet.is_void:
            batching.learn(sheet.late, self._queue, time.monotonic() - sheet.late_since)
        else:
            batching.learn(self._args[0], self._queue, runtime)

    def _is_flat(self) -> bool:
        arguments = self._args
        return (
            isinstance(arguments, (list, tuple))
            and len(arguments) == 1
            and isinstance(arguments[0], (list, tuple))
            and TEXT.issuperset(map(type, arguments[0]))
            and not self._kwargs
        )

"""Collect the short deliveries of one Celery message, and divide them into group commits (decision 0026).

`receiving/routing` adds deliveries to a `Group` and has it delivered; `gates` says which may be added. `group_commit`
runs a group; deliveries that must run alone after all go to `attempt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from signalbus import conf
from signalbus.compat.django_internals import connection_to
from signalbus.ledger import attempts as ledger
from signalbus.receiving.invoking.invocation import Attempt
from signalbus.receiving.process.receiver_runtimes import BRIEF, runtimes
from signalbus.receiving.running.attempt import deliver_attempt
from signalbus.receiving.running.gates import decide, is_held
from signalbus.receiving.running.group_commit import SharedCommit
from signalbus.wire.json_writer import write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from signalbus.registration.registry import Receiver
    from signalbus.transport.progress import Progress
    from signalbus.wire.message import Message

MOST = 32  # deliveries in a commit


class Group:
    """The short deliveries of one Celery message, until they are run in group commits.

    Args:
        text_progress: records which texts of the batch have begun.
    """

    def __init__(self, text_progress: Progress) -> None:
        self.text: int = 0  # the text whose deliveries are added now
        self.parts: Progress | None = None  # how far its recipients are; None if it has one
        self._recipients = 0
        self._text_progress = text_progress
        self.waiting: dict[UUID, Attempt] = {}  # by the ids of their deliveries
        self._may_share: bool | None = None  # None: not asked yet

    @property
    def is_full(self) -> bool:
        """Whether it has as many deliveries as one commit takes."""
        return len(self.waiting) >= MOST

    def begin_text(self, text: int) -> None:
        """Add the deliveries of a text from now on."""
        self.text, self.parts, self._recipients = text, None, 0

    def divide(self, recipients: int) -> Progress:
        """Begin to track each recipient of the current text by itself, because the text has several.

        Args:
            recipients: how many it has.

        Returns:
            Their progress.
        """
        self._recipients = recipients
        self.parts = self._text_progress.parts(self.text, recipients)
        return self.parts

    def drop_text(self) -> None:
        """Mark all recipients of the current text as done, so that none is requeued."""
        if self.parts is not None:
            self.parts.end(*range(self._recipients))

    def add(self, message: Message, recipient: str, receiver: Receiver, place: int = 0) -> bool:
        """Add a delivery, to be run in a group commit later.

        Args:
            message: the message; it was not redelivered.
            recipient: the receiver's id, as the message has it.
            receiver: the receiver.
            place: the index of the recipient among the message's recipients.

        Returns:
            False if it must run alone, and now.
        """
        if not message.recorded or decide(message, receiver, recorded=True) != "share":
            return False
        if self._may_share is None:
            self._may_share = _may_share()
        if not self._may_share:
            return False
        attempt = Attempt(
            message, recipient, receiver, recorded=True, text=self.text, recipient_progress=self.parts, place=place
        )
        return self.waiting.setdefault(attempt.id, attempt) is attempt

    def deliver(self) -> None:
        """Run the deliveries that wait, in as few group commits as possible."""
        divided = _by_context(self.waiting.values())
        self.waiting.clear()
        for attempt in (attempt for waiting in divided for attempt in waiting):
            if attempt.recipient_progress is not None:
                attempt.recipient_progress.resume(attempt.place)
        for waiting in divided:
            self._deliver_together(waiting)

    def _deliver_together(self, put_off: list[Attempt]) -> None:
        waiting = put_off
        while waiting:
            some = _first(waiting)
            waiting = waiting[len(some) :]
            # Ask the gates again: since they were asked, the rest of the batch has run. If a gate holds one of these
            # deliveries now, each runs alone, and `deliver_attempt` asks the gates for each.
            if len(some) == 1 or any(is_held(attempt.message, attempt.receiver) for attempt in some):
                for attempt in some:
                    self._deliver_alone(attempt)
                continue
            shared = SharedCommit(some, ledger.using(), self._text_progress)
            shared.run()
            for attempt in shared.alone:
                self._deliver_alone(attempt)
            waiting = shared.late + waiting
        for attempt in put_off:
            if attempt.recipient_progress is not None:
                attempt.recipient_progress.end(attempt.place)

    def _deliver_alone(self, attempt: Attempt) -> None:
        self._text_progress.resume(attempt.text)
        if attempt.recipient_progress is not None:
            attempt.recipient_progress.resume(attempt.place)
        deliver_attempt(attempt)


def _may_share() -> bool:
    """Return whether this process may use group commits: not in a transaction of the host or of a test."""
    alias = ledger.using()
    connection = connection_to(alias)
    theirs = connection.in_atomic_block or not connection.settings_dict["AUTOCOMMIT"]
    return conf.get().SHARE_COMMITS and not theirs and ledger.supports_group_commit(alias)


def _by_context(attempts: Iterable[Attempt]) -> list[list[Attempt]]:
    """Group attempts by their carried context: deliveries of different tenants share no commit."""
    divided: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        context = attempt.message.context
        divided.setdefault(write(dict(context)) if context else "", []).append(attempt)
    return list(divided.values())


def _first(waiting: list[Attempt]) -> list[Attempt]:
    """Return the first waiting attempts, as many as are short enough together for one commit."""
    seconds = 0.0
    for count, attempt in enumerate(waiting[:MOST]):
        receiver = attempt.receiver.id
        seconds += runtimes.expected(receiver)
        if count and (seconds > BRIEF or not runtimes.may_share(receiver)):
            return waiting[:count]
        if not runtimes.may_share(receiver):
            return waiting[:1]
    return waiting[:MOST]

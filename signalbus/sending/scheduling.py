"""Scheduling: `send_later` records a message until it is due, and `cancel` discards one that has not begun.

`Later` is the part of `Signal` with ``send_later``. The rows are written by `deferred`; the sweeper publishes them
when they are due.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.utils import timezone

from signalbus.exceptions import ConfigurationError, DueError
from signalbus.sending.declared_signal import DeclaredSignal
from signalbus.sending.payload_checks import checked, reject_positional
from signalbus.sending.sent import Sent, unheard

if TYPE_CHECKING:
    from typing_extensions import ParamSpec  # typing has no defaults before Python 3.13

    P = ParamSpec("P", default=...)
else:
    from typing import ParamSpec

    P = ParamSpec("P")

if TYPE_CHECKING:
    from signalbus.sending.send_operation import SendOperation

FURTHEST = timedelta(days=3650)  # as far as the ledger counts from now
PAST = datetime(1970, 1, 1, tzinfo=UTC)  # what is before is due at once, and some databases know no earlier years


class Later(DeclaredSignal, Generic[P]):
    """The part of `Signal` that sends for later."""

    def _operation(
        self, sender: Any, *, robust: bool = False, due: timedelta | datetime | None = None
    ) -> SendOperation | None:
        raise NotImplementedError

    def send_later(self, when: timedelta | datetime, /, sender: Any, *args: P.args, **payload: P.kwargs) -> Sent:
        """Send to the receivers in workers at a later time, by the database's clock.

        The payload is encoded now; the rows that it names are loaded when a receiver runs. The message is recorded in
        the ledger, also for a ``durable=False`` signal, from the commit on. Receivers that run in the sender's process
        (``inline=True``) are not called.

        Args:
            when: the delay from now, at most ten years, or a time; a past time is due at once.
            sender: as in `send`.
            args: as in `send`.
            payload: as in `send`.

        Returns:
            An empty list with the message's ``.id``, which `signalbus.cancel` takes.

        Raises:
            DueError: a naive time although ``USE_TZ`` is on, or no time at all; nothing was sent.
            PayloadError: a value that cannot travel; nothing was sent.
            CascadeError: a cascade too deep.
            ConfigurationError: the signal is ordered or debounced, or as for `send`.
        """
        reject_positional("send_later", args)
        given = checked(self.contract, payload)
        self._refuse_rules()
        due = due_from(when)
        if not self.receivers and not self.open:
            return unheard()
        operation = self._operation(sender, due=due)
        if operation is None:
            return Sent()
        operation.encode((given,))
        return operation.hand_over(())

    async def asend_later(self, when: timedelta | datetime, /, sender: Any, *args: P.args, **payload: P.kwargs) -> Sent:
        """Send from a coroutine; as `send_later` in everything else."""
        return await sync_to_async(self.send_later)(when, sender, *args, **payload)

    def _refuse_rules(self) -> None:
        if self.ordered_by is not None:
            raise ConfigurationError(
                f"{self!r} is ordered by the commits of its senders, and what is due later would hold back all that is "
                "sent after it: send_later() with a signal that has no ordered_by=, whose receiver sends this one."
            )
        if self.deduplication is not None and self.deduplication.debounce is not None:
            raise ConfigurationError(
                f"debounce= says when {self!r} is published: send() it, or send_later() a signal without debounce=."
            )


def due_from(when: timedelta | datetime) -> timedelta | datetime:
    """Check the time or delay that the caller gave.

    Args:
        when: a delay from now, or a time.

    Returns:
        The same; a time is aware.

    Raises:
        DueError: not a valid time or delay.
    """
    if isinstance(when, timedelta):
        if when > FURTHEST:
            raise DueError(f"{when!r} is further than the ledger counts from now, ten years: give a datetime.")
        return max(when, timedelta())
    if not isinstance(when, datetime):
        raise DueError(f"{when!r} is no time: give a timedelta from now, or a datetime.")
    if timezone.is_naive(when):
        if settings.USE_TZ:
            raise DueError(
                f"{when!r} is naive, and could be any of a day's hours: make it aware, with "
                "django.utils.timezone.make_aware(…), or give a timedelta."
            )
        when = timezone.make_aware(when)
    return max(when, PAST).astimezone(UTC)


def cancel(message: UUID | str | None) -> bool:
    """Cancel a message that no worker has begun to deliver: discard its deliveries.

    In an open transaction of the ledger's database the cancellation is part of it: until its commit no worker runs the
    cancelled message.

    Args:
        message: the ``.id`` that `Signal.send_later` or another send of a durable signal returned.

    Returns:
        True if no delivery of it has run or will run; False if a delivery of it has begun or ended, or the ledger does
        not have it.
    """
    from signalbus.ledger import sends as ledger  # noqa: PLC0415 - its tables must wait until the apps are loaded

    if message is None:  # of a send without receivers in workers
        return False
    return ledger.cancel(message if isinstance(message, UUID) else UUID(message))

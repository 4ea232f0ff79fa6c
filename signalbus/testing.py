"""For the tests of projects that send and receive: with the real codec, and without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from signalbus import conf
from signalbus.announcements import delivery_dead, delivery_failed
from signalbus.exceptions import SignalBusError
from signalbus.receiving import batch
from signalbus.receiving.fetching import fetch
from signalbus.registry import registry
from signalbus.sending import outbox
from signalbus.sending.bridge import names_of
from signalbus.sending.signal import Signal
from signalbus.wire import codec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.dispatch import Signal as DjangoSignal

    from signalbus.context import CurrentDelivery
    from signalbus.sending.composing import Outgoing
    from signalbus.wire.message import Message


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that was captured.

    Args:
        id: the message's id.
        signal: the signal's name.
        sender: the name of its sender, or None.
        recipients: the ids of its receivers; empty for an open signal.
        text: what would travel.
    """

    id: UUID
    signal: str
    sender: str | None
    recipients: tuple[str, ...]
    text: str

    @property
    def payload(self) -> dict[str, Any]:
        """The payload as a receiver would get it: decoded, its rows fetched."""
        _sender, payload = codec.decode(self.text, fetch, max_depth=conf.get().MAX_NESTING)
        return dict(payload)

    def __str__(self) -> str:
        to = ", ".join(self.recipients) or "whoever listens"
        shown = self.text if len(self.text) <= 300 else f"{self.text[:299]}…"  # noqa: PLR2004 - a few lines
        return f"{self.signal} from {self.sender} to {to}: {shown}"


class _Commit:
    """A callback that waits for a commit, and so shares the fate of what was sent beside it."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._called = False
        connection.on_commit(self, robust=True)

    def __call__(self) -> None:
        self._called = True

    @property
    def stands(self) -> bool:
        """False once the transaction, or a savepoint around it, was rolled back."""
        return self._called or any(waiting[1] is self for waiting in self._connection.run_on_commit)


class _Fate:
    """The commits of all transactions that were open, as the outbox waits for them."""

    def __init__(self) -> None:
        self._commits = [_Commit(connection) for connection in outbox.open_transactions()]

    @property
    def stands(self) -> bool:
        """False once any of them was rolled back."""
        return all(commit.stands for commit in self._commits)


class Captured(Sequence[SentMessage]):
    """The messages sent inside ``captured()``, in order, without those that a rollback took back."""

    def __init__(self) -> None:
        self._outgoing: list[tuple[_Fate, Outgoing]] = []
        self._delivered = 0

    def take(self, outgoing: list[Outgoing]) -> None:
        """Take in what would have been published."""
        fate = _Fate()
        self._outgoing.extend((fate, item) for item in outgoing)

    def _messages(self) -> list[SentMessage]:
        messages: dict[UUID, SentMessage] = {}
        for fate, item in self._outgoing:
            if fate.stands:
                message = item.message
                parts = messages.get(message.id)
                recipients = (*(parts.recipients if parts else ()), *(message.recipients or ()))
                messages[message.id] = SentMessage(
                    message.id, message.signal, message.sender, recipients, message.payload
                )
        return list(messages.values())

    def __len__(self) -> int:
        return len(self._messages())

    @overload
    def __getitem__(self, index: int) -> SentMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[SentMessage]: ...
    def __getitem__(self, index: int | slice) -> SentMessage | list[SentMessage]:
        return self._messages()[index]

    def of(self, signal: DjangoSignal, /) -> list[SentMessage]:
        """Return the messages of a signal: one of ours, or a plain one that receivers in workers are connected to."""
        names = names_of(signal)
        return [sent for sent in self if sent.signal in names]

    def assert_sent(self, signal: DjangoSignal, /, *, times: int | None = None, **payload: Any) -> list[SentMessage]:
        """Assert that a signal was sent.

        Args:
            signal: the signal, ours or a plain one.
            times: how often exactly; at least once if not given.
            payload: keys that a message must have, with equal values.

        Returns:
            The messages that fit.

        Raises:
            AssertionError: it was not; the message lists what was sent instead.
        """
        fitting = [sent for sent in self.of(signal) if _fits(sent, payload)]
        if (times is None and not fitting) or (times is not None and len(fitting) != times):
            wanted = f"{_shown(signal)}" + (f" with {payload!r}" if payload else "")
            often = "at least once" if times is None else f"{times} time(s)"
            hint = (
                "" if _travels(signal) else "\nNo receiver that runs in a worker is connected to it: nothing travels."
            )
            raise AssertionError(f"{wanted} should have been sent {often}, was {len(fitting)} time(s).\n{self}{hint}")
        return fitting

    def assert_not_sent(self, signal: DjangoSignal, /) -> None:
        """Assert that a signal was not sent.

        Args:
            signal: the signal.

        Raises:
            AssertionError: it was; the message lists what was sent.
        """
        if self.of(signal):
            raise AssertionError(f"{_shown(signal)} should not have been sent.\n{self}")

    def deliver_all(self) -> int:
        """Deliver what was captured, and what its receivers send in turn, in this process.

        A receiver's exception comes out here, as `DeliveryFailed`.

        Returns:
            How many messages were delivered.

        Raises:
            DeliveryFailed: a receiver failed; every other one ran.
            SignalBusError: a receiver, or the signal, is gone since the signal was sent; a worker would wait for it.
        """
        failures: list[tuple[CurrentDelivery, BaseException]] = []

        def note(sender: str, delivery: CurrentDelivery, error: BaseException, **_kwargs: Any) -> None:  # noqa: ARG001 - a receiver
            failures.append((delivery, error))

        announcements: list[DjangoSignal] = [delivery_failed, delivery_dead]
        for announcement in announcements:
            announcement.connect(note, weak=False)
        delivered: set[UUID] = set()
        try:
            while self._delivered < len(self._outgoing):
                fate, item = self._outgoing[self._delivered]
                self._delivered += 1
                if fate.stands:
                    _look_up(item.message)
                    batch.deliver([conf.signer().sign(item.body)], queue=item.queue)
                    delivered.add(item.message.id)
        finally:
            for announcement in announcements:
                announcement.disconnect(note)
        if failures:
            raise DeliveryFailed(failures) from failures[0][1]
        return len(delivered)

    def __str__(self) -> str:
        lines = [f"  {number}. {sent}" for number, sent in enumerate(self._messages(), 1)]
        return "\n".join(["What was sent:", *lines]) if lines else "Nothing was sent."


def _look_up(message: Message) -> None:
    signal = registry.signal(message.signal)
    for recipient in message.recipients or ():
        if signal is None or signal.find(recipient, message.sender) is None:
            raise SignalBusError(
                f"{recipient} was connected to {message.signal} when it was sent, and is not any more: keep a "
                "reference to it, or connect it with weak=False, until it is delivered."
            )


def _shown(signal: DjangoSignal) -> str:
    return ", ".join(sorted(names_of(signal))) or repr(signal)


def _travels(signal: DjangoSignal) -> bool:
    return bool(signal.open or signal.entries()) if isinstance(signal, Signal) else bool(names_of(signal))


def _fits(sent: SentMessage, wanted: dict[str, Any]) -> bool:
    if not wanted:
        return True
    payload = sent.payload
    return all(key in payload and payload[key] == value for key, value in wanted.items())


class DeliveryFailed(SignalBusError):  # noqa: N818 - says what happened
    """A receiver failed in ``deliver_all()``.

    Args:
        failures: the deliveries with what their receivers raised; the first is also the cause.
    """

    def __init__(self, failures: list[tuple[CurrentDelivery, BaseException]]) -> None:
        lines = [f"{delivery.signal} to {delivery.receiver}: {error!r}" for delivery, error in failures]
        super().__init__("; ".join(lines))
        self.failures = failures


_captures: list[Captured] = []


@contextmanager
def captured() -> Iterator[Captured]:
    """Capture what is sent inside the block, at once: also inside a ``TestCase``, where a commit never comes.

    Nothing reaches a broker. What a rollback takes back is not in the list.

    Returns:
        The list of messages, which also asserts and delivers.
    """
    capture = Captured()
    token = outbox.diverted.set(capture.take)
    _captures.append(capture)
    try:
        yield capture
    finally:
        _captures.remove(capture)
        outbox.diverted.reset(token)


def deliver_all() -> int:
    """Deliver what the innermost ``captured()`` block holds, and what its receivers send in turn.

    Returns:
        How many messages were delivered.

    Raises:
        DeliveryFailed: a receiver failed; every other one ran.
        SignalBusError: outside of any ``captured()`` block.
    """
    if not _captures:
        raise SignalBusError("deliver_all() delivers what was captured: call it inside `with captured():`.")
    return _captures[-1].deliver_all()


@contextmanager
def muted() -> Iterator[None]:
    """Let nothing out of the block: what is sent is still encoded, so that what cannot travel still raises."""
    token = outbox.diverted.set(lambda _outgoing: None)
    try:
        yield
    finally:
        outbox.diverted.reset(token)

"""Test tools for projects: capture what is sent, and deliver it in the test, with the real codec and no broker.

Public: `signalbus.testing`. The messages are diverted in `sending/outbox`, and delivered by the same code as in a
worker (`receiving/routing/batch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from django.apps import apps
from django.db.models import Model

from signalbus import conf
from signalbus.bridging.bridge import names_of
from signalbus.carriers import carrying
from signalbus.exceptions import SignalBusError
from signalbus.failure_signals import delivery_dead, delivery_failed
from signalbus.registration.registry import registry
from signalbus.sending import event_loop_guard, outbox
from signalbus.sending.signal import Signal
from signalbus.transactions import CommitOutcome, deciding
from signalbus.wire import codec
from signalbus.wire.message import to_body

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from uuid import UUID

    from django.dispatch import Signal as DjangoSignal

    from signalbus.context import CurrentDelivery
    from signalbus.sending.outgoing import Outgoing
    from signalbus.wire.values.references import Reference


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that was captured.

    Args:
        id: the message's id.
        signal: the signal's name.
        sender: the name of its sender, or None.
        recipients: the ids of its receivers; empty for an open signal.
        text: the text that would be published.
        context: the sender's carried context, by the names of the carriers of ``SIGNALBUS["CARRY"]``.
    """

    id: UUID
    signal: str
    sender: str | None
    recipients: tuple[str, ...]
    text: str
    context: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def payload(self) -> dict[str, Any]:
        """The payload, decoded as a receiver would get it, with its rows or the values that were sent in their place.

        Rows are loaded in the sender's context, for example in the schema of its tenant.
        """
        from signalbus.receiving.invoking.row_loading import fetch  # noqa: PLC0415 - only a test needs it; all import this

        return carrying.call_restored(self.context, self._payload, fetch)

    def fits(self, wanted: Mapping[str, Any]) -> bool:
        """Return whether the payload has these keys, with equal values; rows are equal to instances with their key."""
        if not wanted:
            return True
        payload = self._payload(_unfetched)
        return all(key in payload and payload[key] == value for key, value in wanted.items())

    def _payload(
        self, fetch: Callable[[Mapping[Reference, Collection[str]]], Mapping[Reference, Model]]
    ) -> dict[str, Any]:
        return codec.decode(self.text, fetch, snapshots=True, max_depth=conf.get().MAX_NESTING)[1]

    def __str__(self) -> str:
        to = ", ".join(self.recipients) or "whoever listens"
        shown = self.text if len(self.text) <= 300 else f"{self.text[:299]}…"  # noqa: PLR2004 - a few lines
        return f"{self.signal} from {self.sender} to {to}: {shown}"


class Captured(Sequence[SentMessage]):
    """The messages sent inside ``captured()``, in order, without those of transactions that were rolled back."""

    def __init__(self, outgoing: Iterable[Outgoing] = ()) -> None:
        self._outgoing = [(CommitOutcome(()), item) for item in outgoing]
        self._delivered = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Captured:
        """Copy messages that ``setUpTestData()`` captured for each test of a ``TestCase``; the commits are the same."""
        copied = Captured()
        copied._outgoing, copied._delivered = [*self._outgoing], self._delivered
        return copied

    def take(self, outgoing: list[Outgoing]) -> None:
        """Capture messages that would have been published."""
        outcome = CommitOutcome(deciding())
        self._outgoing.extend((outcome, item) for item in outgoing)

    def _messages(self) -> list[SentMessage]:
        messages: dict[UUID, SentMessage] = {}
        for outcome, item in self._outgoing:
            if outcome.survives:
                message = item.message
                parts = messages.get(message.id)
                recipients = (*(parts.recipients if parts else ()), *(message.recipients or ()))
                messages[message.id] = SentMessage(
                    message.id, message.signal, message.sender, recipients, message.payload, message.context
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
            payload: keys that a message must have, with equal values. Model instances are compared by model and key,
                without a look at the database.

        Returns:
            The messages that fit.

        Raises:
            AssertionError: it was not; the message lists what was sent instead.
        """
        fitting = [sent for sent in self.of(signal) if sent.fits(payload)]
        if (times is None and not fitting) or (times is not None and len(fitting) != times):
            wanted = f"{_shown(signal)}" + (f" with {payload!r}" if payload else "")
            often = "at least once" if times is None else f"{times} time(s)"
            raise AssertionError(
                f"{wanted} should have been sent {often}, was {len(fitting)} time(s).\n{self}{_hints(signal, payload)}"
            )
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
        """Deliver the captured messages, and those that their receivers send, in this process.

        A receiver's exception comes out here, as `DeliveryFailed`.

        Returns:
            How many messages were delivered.

        Raises:
            DeliveryFailed: a receiver failed; every other one ran.
            SignalBusError: a receiver, or the signal, is gone since the signal was sent; a worker would wait for it. Or
                an event loop runs on this thread, where receivers cannot; nothing was delivered.
        """
        if event_loop_guard.forbid_databases():
            raise SignalBusError(
                "Receivers cannot be run while an event loop runs on this thread: send with `await signal.asend(…)`, "
                "and deliver what was captured with `await sync_to_async(sent.deliver_all)()`. Nothing was delivered."
            )
        delivered: set[UUID] = set()
        with _failures() as failures, _diverted(self.take):
            while self._delivered < len(self._outgoing):
                outcome, item = self._outgoing[self._delivered]
                self._delivered += 1
                if outcome.survives:
                    _deliver(item)
                    delivered.add(item.message.id)
        if failures:
            raise DeliveryFailed(failures) from failures[0][1]
        return len(delivered)

    def __str__(self) -> str:
        lines = [f"  {number}. {sent}" for number, sent in enumerate(self._messages(), 1)]
        return "\n".join(["What was sent:", *lines]) if lines else "Nothing was sent."


@contextmanager
def _failures() -> Iterator[list[tuple[CurrentDelivery, BaseException]]]:
    """Collect the exceptions of receivers inside the block."""
    failures: list[tuple[CurrentDelivery, BaseException]] = []

    def note(sender: str, delivery: CurrentDelivery, error: BaseException, **_kwargs: Any) -> None:  # noqa: ARG001 - a receiver
        failures.append((delivery, error))

    announcements: list[DjangoSignal] = [delivery_failed, delivery_dead]
    for announcement in announcements:
        announcement.connect(note, weak=False)
    try:
        yield failures
    finally:
        for announcement in announcements:
            announcement.disconnect(note)


def _deliver(item: Outgoing) -> None:
    """Deliver to each recipient by itself, whatever its queue: so nothing is handed on through a broker."""
    from signalbus.receiving.routing import batch  # noqa: PLC0415 - only a test needs it, and every process imports this

    message = item.message
    signal = registry.signal(message.signal)
    if signal is None:
        raise SignalBusError(
            f"{message.signal} was there when it was sent, and is not any more: keep a reference to it."
        )
    recipients = message.recipients
    if recipients is None:
        recipients = tuple(receiver.id for receiver in signal.matching(message.sender))
    for recipient in recipients:
        if signal.find(recipient, message.sender) is None:
            raise SignalBusError(
                f"{recipient} was connected to {message.signal} when it was sent, and is not any more: keep a "
                "reference to it, or connect it with weak=False, until it is delivered."
            )
    # Not recorded: captured messages have no rows.
    parts = [to_body(message.for_recipients([recipient], recorded=False)) for recipient in recipients]
    for body in parts or [item.body]:
        batch.deliver([conf.signer().sign(body)], queue=item.queue)


def _shown(signal: DjangoSignal) -> str:
    return ", ".join(sorted(names_of(signal))) or repr(signal)


def _hints(signal: DjangoSignal, wanted: Mapping[str, Any]) -> str:
    hints = [] if _travels(signal) else ["No receiver that runs in a worker is connected to it: nothing travels."]
    hints += [
        f"{key}= has no primary key: delete() takes it away. Note it before, and compare with an instance that has it."
        for key, value in wanted.items()
        if isinstance(value, Model) and value.pk is None
    ]
    return "".join(f"\n{hint}" for hint in hints)


def _travels(signal: DjangoSignal) -> bool:
    return bool(signal.open or signal.entries()) if isinstance(signal, Signal) else bool(names_of(signal))


def _unfetched(references: Iterable[Reference]) -> dict[Reference, Model]:
    """Make instances that know no more than their keys, by which Django compares: the rows may be gone since."""
    instances: dict[Reference, Model] = {}
    for reference in references:
        instance = instances[reference] = apps.get_model(reference.label).from_db(None, (), ())  # all fields deferred
        instance.pk = reference.pk
    return instances


class DeliveryFailed(SignalBusError):  # noqa: N818 - says what happened
    """A receiver failed in ``deliver_all()``.

    Args:
        failures: the deliveries with the exceptions of their receivers; the first is also the cause.
    """

    def __init__(self, failures: list[tuple[CurrentDelivery, BaseException]]) -> None:
        lines = [f"{delivery.signal} to {delivery.receiver}: {error!r}" for delivery, error in failures]
        super().__init__("; ".join(lines))
        self.failures = failures


_captures: list[Captured] = []


@contextmanager
def _diverted(divert: Callable[[list[Outgoing]], None], *, all_threads: bool = False) -> Iterator[None]:
    token, before = outbox.diverted.set(divert), outbox.diverted_everywhere
    if all_threads:
        outbox.diverted_everywhere = divert
    try:
        yield
    finally:
        if all_threads:
            outbox.diverted_everywhere = before
        outbox.diverted.reset(token)


@contextmanager
def captured(*, all_threads: bool = False) -> Iterator[Captured]:
    """Capture messages that are sent inside the block, at once: also inside a ``TestCase``, which never commits.

    No message reaches a broker. Messages that a rollback drops are not in the list.

    Args:
        all_threads: also capture messages of other threads, such as a ``LiveServerTestCase``'s server. Without it, only
            those of this context: this thread, with the coroutines and ``sync_to_async`` calls that it starts.

    Returns:
        The list of messages, which also asserts and delivers.
    """
    capture = Captured()
    _captures.append(capture)
    try:
        with _diverted(capture.take, all_threads=all_threads):
            yield capture
    finally:
        _captures.remove(capture)


def deliver_all() -> int:
    """Deliver the messages of the innermost ``captured()`` block, and those that their receivers send.

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
    """Drop the messages that are sent in the block, after they are encoded: an invalid payload still raises."""
    with _diverted(_drop):
        yield


@contextmanager
def immediate() -> Iterator[None]:
    """Deliver each send at once, in this process: for suites that assert right after a ``save()``.

    Also inside a ``TestCase``: if a transaction is open, the receivers run in it. Messages that they send are delivered
    when they are done. ``send()`` raises their exceptions as `DeliveryFailed`; robust forms log them.
    """
    with _diverted(_deliver_now):
        yield


def _drop(outgoing: list[Outgoing]) -> None:
    """Let nothing out."""


def _deliver_now(outgoing: list[Outgoing]) -> None:
    Captured(outgoing).deliver_all()


outbox.test_modes.update(muted=_drop, immediate=_deliver_now)

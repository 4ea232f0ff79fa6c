"""One send on its way from the payload to the outbox."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from django.apps import apps

from signalbus.exceptions import ConfigurationError, PayloadError, SignalBusError
from signalbus.registry import registry
from signalbus.sending import loops
from signalbus.sending.composing import Envelope, Outgoing, route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import ModuleType
    from uuid import UUID

    from signalbus.registry import Receiver
    from signalbus.sending.signal import Signal

RESERVED = ("signal", "sender")  # what a receiver gets beside the payload


class Sent(list[tuple[Any, Any]]):
    """What a send returns: (receiver, response) for each receiver that ran in this process; normally none."""

    id: UUID | None = None  # the message's id, or None if nothing travels


def unheard() -> Sent:
    """Answer a send that nobody listens to, where somebody could."""
    if not registry.complete and apps.ready:
        raise ConfigurationError(
            'Add "signalbus" to INSTALLED_APPS: without it, nobody looks for the receivers of your apps, and whatever '
            "you send reaches nobody."
        )
    return Sent()


class Draft:
    """What travels of a send.

    Args:
        signal: what is sent.
        sender: who sends.
        receivers: whom it travels to.
        inline: receivers that run here hear it as well.
        coroutines: some of these must be awaited.
        robust: raise nothing; what goes wrong is the response of each of the receivers.
        due: when it is to be published; None: after the commit.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        signal: Signal,
        sender: Any,
        receivers: Sequence[Receiver],
        *,
        inline: bool,
        coroutines: bool,
        robust: bool,
        due: timedelta | datetime | None = None,
    ) -> None:
        self.inline = inline
        self._signal = signal
        self._sender = sender
        self._receivers = receivers
        self._coroutines = coroutines
        self._robust = robust
        self._due = due
        self._messages: list[list[Outgoing]] = []
        self._error: Exception | None = None

    def encode(self, payloads: Iterable[Mapping[str, Any]]) -> None:
        """Encode the payloads, before anything else is done.

        Args:
            payloads: a message for each.

        Raises:
            PayloadError: a value that cannot travel.
            CascadeError: a cascade too deep.
            ConfigurationError: a signal without a name, a name or id that two share.
            SignalBusError: inline coroutines cannot be awaited here.
        """
        if self._coroutines and loops.is_running():
            raise SignalBusError(
                f"{self._signal!r} has inline `async def` receivers, which cannot be waited for while an event loop "
                "runs on this thread: say `await signal.asend(…)` (or asend_robust). Nothing was sent."
            )
        try:
            self._messages = self._encoded(payloads)
        except Exception as error:
            # Whatever a value's own code raises: Django's robust forms would not have touched it.
            if not self._robust:
                raise
            self._error = error

    def _encoded(self, payloads: Iterable[Mapping[str, Any]]) -> list[list[Outgoing]]:
        signal = self._signal
        if signal.conflicts:
            raise ConfigurationError(str(signal.conflicts[0]))
        for key in RESERVED:
            if any(key in payload for payload in payloads):
                raise PayloadError("receivers get one beside the payload: call it something else", key)
        envelope = Envelope(
            signal=signal.name,
            durable=signal.durable,
            ordered_by=signal.ordered_by,
            ledger=_outbox().ledger.using(),
            routes={None: None} if signal.open else route(self._receivers),
            snapshots=any(receiver.on_missing == "snapshot" for receiver in self._receivers),
            due=self._due,
            once=signal.once,
        )
        try:
            return signal.compose(envelope, self._sender, payloads)
        except Exception:
            # Whatever the encoder makes of it, a payload that asks a database was not allowed to under an event loop.
            if not loops.forbid_databases():
                raise
            return loops.call_away(signal.compose, envelope, self._sender, payloads)

    def publish(self) -> list[UUID | None]:
        """Hand the messages to the outbox.

        Returns:
            The id for each payload of its message, or of the one that stands for it; none of what could not be sent.
        """
        if self._error is None:
            try:
                instead = _outbox().add([part for parts in self._messages for part in parts], robust=self._robust)
            except Exception as error:
                # As in encode(): a transaction that nobody can follow, for one.
                if not self._robust:
                    raise
                self._error = error
            else:
                ids = [parts[0].message.id if parts else None for parts in self._messages]
                return [id_ and instead.get(id_, id_) for id_ in ids] if instead else ids
        from signalbus.sending import unsendable  # noqa: PLC0415 - as the outbox

        name = self._signal.known_name() or self._signal.place
        unsendable.keep(name, [(receiver.id, receiver.queue) for receiver in self._receivers], self._error)
        return []

    def hand_over(self, responses: Iterable[tuple[Any, Any]]) -> Sent:
        """Hand the message to the outbox; what could not be sent is the response of each whom it was meant for.

        Args:
            responses: those of the receivers that ran here.

        Returns:
            All responses, and the message's id.
        """
        sent = Sent(responses)
        ids = self.publish()
        if ids:
            (sent.id,) = ids
            return sent
        functions = [receiver.function() for receiver in self._receivers]
        sent += [(function, self._error) for function in functions if function is not None]
        return sent


@cache
def _outbox() -> ModuleType:
    """Import the outbox when something is sent: its tables must wait until the apps are loaded, a Signal must not."""
    from signalbus.sending import outbox  # noqa: PLC0415 - see above

    return outbox

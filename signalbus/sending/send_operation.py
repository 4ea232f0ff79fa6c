"""Send in separate steps: encode the payloads, run the receivers of this process, hand the messages to the outbox.

`signal` and `scheduling` make a `SendOperation` for each send that cannot use a cached template
(`message_templates`): one with inline receivers, a robust one, one for later.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from signalbus.carriers import carrying, origin_of_send
from signalbus.exceptions import ConfigurationError, PayloadError, SignalBusError
from signalbus.sending import event_loop_guard
from signalbus.sending.outgoing import Outgoing, SharedFields, route
from signalbus.sending.sent import Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import ModuleType
    from uuid import UUID

    from signalbus.registration.registry import Receiver
    from signalbus.sending.declared_signal import DeclaredSignal

    Compose = Callable[[SharedFields, Any, Iterable[Mapping[str, Any]]], list[list[Outgoing]]]

RESERVED = frozenset({"signal", "sender"})  # what a receiver gets beside the payload


class SendOperation:
    """One send to receivers in workers, before it is handed to the outbox.

    Args:
        signal: the signal.
        sender: the sender.
        receivers: the receivers in workers.
        inline: whether receivers run here as well.
        coroutines: whether some of those are coroutines.
        robust: raise nothing; an error is the response of each of the receivers.
        compose: encodes payloads into messages.
        due: when to publish it; None: after the commit.
    """

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        signal: DeclaredSignal,
        sender: Any,
        receivers: Sequence[Receiver],
        *,
        inline: bool,
        coroutines: bool,
        robust: bool,
        compose: Compose,
        due: timedelta | datetime | None = None,
    ) -> None:
        self.inline = inline
        self._signal = signal
        self._sender = sender
        self._receivers = receivers
        self._coroutines = coroutines
        self._robust = robust
        self._compose = compose
        self._due = due
        self._messages: list[list[Outgoing]] = []
        self._error: Exception | None = None

    def encode(self, payloads: Iterable[Mapping[str, Any]]) -> None:
        """Encode the payloads, before anything else is done.

        Args:
            payloads: one for each message.

        Raises:
            PayloadError: a value that cannot be sent.
            CascadeError: a cascade too deep.
            ConfigurationError: a signal without a name, a name or id that two share.
            SignalBusError: inline coroutines cannot be awaited here.
        """
        if self._coroutines and event_loop_guard.is_running():
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
        refuse_reserved(payloads)
        shared = shared_fields_of(signal, self._receivers, self._due)
        context = carrying.capture()  # in the sender's own thread: another one may have another tenant
        origin = origin_of_send.capture_origin()
        if context or origin:
            shared = replace(shared, context=context, origin=origin)
        try:
            return self._compose(shared, self._sender, payloads)
        except Exception:
            # Whatever the encoder makes of it, a payload that asks a database was not allowed to under an event loop.
            if not event_loop_guard.forbid_databases():
                raise
        return event_loop_guard.call_away(self._compose, shared, self._sender, payloads)

    def fail(self, error: Exception) -> None:
        """Let a robust send fail before anything is encoded.

        Args:
            error: why its payload cannot be sent.
        """
        self._error = error

    def publish(self) -> list[UUID | None]:
        """Hand the messages to the outbox.

        Returns:
            For each payload the id of its message, or of the message that stands for it; empty if the send failed.
        """
        if self._error is None:
            try:
                instead = outbox().add([part for parts in self._messages for part in parts], robust=self._robust)
            except Exception as error:
                # As in encode(): a transaction whose end Django does not announce, for one.
                if not self._robust:
                    raise
                self._error = error
            else:
                return ids_of(self._messages, instead)
        from signalbus.sending import robust_failures  # noqa: PLC0415 - as the outbox

        name = self._signal.known_name() or self._signal.place
        robust_failures.record_failure(
            name, [(receiver.id, receiver.queue) for receiver in self._receivers], self._error
        )
        return []

    def hand_over(self, responses: Iterable[tuple[Any, Any]]) -> Sent:
        """Hand the message to the outbox; if that fails, the error is the response of each receiver in a worker.

        Args:
            responses: the responses of the receivers that ran here.

        Returns:
            All responses, and the message's id.
        """
        sent = Sent(responses)
        ids = self.publish()
        if ids:
            (id_,), (parts,) = ids, self._messages
            recorded = any(part.route.recorded or part.rule is not None for part in parts)
            return sent.with_message(id_, [part.route for part in parts], recorded=recorded)
        functions = [receiver.function() for receiver in self._receivers]
        sent += [(function, self._error) for function in functions if function is not None]
        return sent


def shared_fields_of(
    signal: DeclaredSignal, receivers: Sequence[Receiver], due: timedelta | datetime | None = None
) -> SharedFields:
    """Return the values that all messages of a send share.

    Args:
        signal: the signal.
        receivers: the receivers in workers.
        due: when to publish the messages; None: after the commit.

    Raises:
        ConfigurationError: a signal without a name, or with that of another.
    """
    return SharedFields(
        signal=signal.name,
        durable=signal.durable,
        ordered_by=signal.ordered_by,
        ledger=outbox().ledger.using(),
        routes={None: None} if signal.open else route(receivers),
        snapshots=any(receiver.policy.on_missing == "snapshot" for receiver in receivers),
        due=due,
        deduplication=signal.deduplication,
        payload_version=1 if signal.contract is None else signal.contract.version,
    )


def refuse_reserved(payloads: Iterable[Mapping[str, Any]]) -> None:
    """Refuse payloads with a reserved key, ``signal`` or ``sender``, which receivers get anyway.

    Args:
        payloads: the payloads of a send.

    Raises:
        PayloadError: a payload has such a key.
    """
    for payload in payloads:
        if not RESERVED.isdisjoint(payload):
            key = min(RESERVED.intersection(payload))
            raise PayloadError("receivers get one beside the payload: call it something else", key)


def ids_of(messages: Iterable[Sequence[Outgoing]], instead: Mapping[UUID, UUID]) -> list[UUID | None]:
    """Return the ids of messages, or of the messages that stand for them; None for a message without parts.

    Args:
        messages: each by its parts.
        instead: for each duplicate the message that stands for it.
    """
    ids = [parts[0].id if parts else None for parts in messages]
    return [id_ and instead.get(id_, id_) for id_ in ids] if instead else ids


@cache
def outbox() -> ModuleType:
    """Import the outbox when something is sent: its tables must wait until the apps are loaded, a Signal must not."""
    from signalbus.sending import outbox  # noqa: PLC0415 - see above

    return outbox

"""Rehearse a delivery: run its receiver in transactions that are rolled back, and tell what it would have done.

Called by the command ``rehearse``, in a process of its own: connections by sockets and Django's mail are replaced for
the whole process meanwhile. The ledger is not changed, no event is emitted, and no attempt is counted.
"""

from __future__ import annotations

import contextvars
import socket
import time
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connections, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.utils.module_loading import import_string

from signalbus.compat.django_internals import callbacks_of
from signalbus.exceptions import ConfigurationError
from signalbus.receiving.invoking.invocation import Attempt, invoke
from signalbus.receiving.invoking.runner import describe
from signalbus.receiving.invoking.tracebacks import format_error
from signalbus.receiving.process.database_connections import reset_connections
from signalbus.receiving.process.session_state import end_changed_sessions
from signalbus.registration.registry import registry
from signalbus.sending import outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django.db.models import Model

    from signalbus.models import Delivery
    from signalbus.sending.outgoing import Outgoing
    from signalbus.services.lookup import FoundMessage

# What neither a rollback nor this module takes back.
LASTING: Final = (
    "what it wrote to files, caches in memory and tables without transactions",
    "programs that it started",
    "connections by sockets that were open before, and libraries that open theirs outside of Python",
    "numbers that it drew from sequences",
)
_QUIET: Final = frozenset({"SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK", "SHOW", "PRAGMA", "EXPLAIN"})


class SocketBlocked(OSError):  # noqa: N818 - says what happened
    """A rehearsed receiver tried to open a connection."""


@dataclass(slots=True)
class Rehearsal:
    """The result of a rehearsal.

    Args:
        receiver: the receiver's place.
        attempt: the number that the attempt would have.
        error: what the receiver raised, in a line; empty if it would succeed.
        traceback: its traceback.
        seconds: how long the receiver ran.
        statements: the statements that would change a database, with its alias in front, without their values.
        changes: the rows that would be saved or deleted, as Django's signals tell them.
        mails: the mail that it would send: subject and receivers.
        messages: the signals that it would send.
        callbacks: the functions that it left with ``on_commit``; they did not run.
        sockets: the addresses that it tried to connect to.
    """

    receiver: str
    attempt: int
    error: str = ""
    traceback: str = ""
    seconds: float = 0.0
    statements: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    callbacks: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)


def rehearse(found: FoundMessage, delivery: Delivery) -> Rehearsal:
    """Run the receiver of a delivery, and roll everything back.

    Args:
        found: the delivery's message.
        delivery: one of its deliveries.

    Returns:
        What the receiver would have done.

    Raises:
        ConfigurationError: it cannot be run here: its text cannot be read, or the receiver is not connected.
    """
    attempt = _attempt(found, delivery)
    rehearsal = Rehearsal(attempt.receiver.place, attempt.number)
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(_captured_messages(rehearsal))
        stack.enter_context(_captured_changes(rehearsal))
        stack.enter_context(_captured_mail(rehearsal))
        for connection in connections.all():
            stack.enter_context(_rolled_back(connection.alias))
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(_recorder(connection.alias, rehearsal)))
        stack.enter_context(_blocked_sockets(rehearsal))
        before = {id(callback) for callback in _callbacks()}
        try:
            contextvars.copy_context().run(invoke, attempt)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a receiver raises is the result, SystemExit too
            rehearsal.error, rehearsal.traceback = describe(error), format_error(error, error.__traceback__)
        rehearsal.seconds = time.monotonic() - began
        rehearsal.callbacks += [_name(callback) for callback in _callbacks() if id(callback) not in before]
    end_changed_sessions()
    reset_connections()
    return rehearsal


def _attempt(found: FoundMessage, delivery: Delivery) -> Attempt:
    if found.message is None or not delivery.receiver:
        raise ConfigurationError(
            f"{delivery.pk} cannot be rehearsed: its text was not verified, or this version cannot read it."
        )
    signal = registry.signal(found.message.signal)
    receiver = None if signal is None else signal.find(delivery.receiver, found.message.sender)
    if receiver is None:
        raise ConfigurationError(
            f"{delivery.receiver} is not connected to {found.message.signal} in this process: "
            f"`manage.py signalbus explain {found.message.signal}` shows its receivers."
        )
    return Attempt(found.message, delivery.receiver, receiver, number=delivery.attempts + 1)


@contextmanager
def _rolled_back(alias: str) -> Iterator[None]:
    with transaction.atomic(using=alias):
        yield
        transaction.set_rollback(True, using=alias)


def _callbacks() -> Iterator[Callable[[], object]]:
    for connection in connections.all(initialized_only=True):
        for _, callback, _ in callbacks_of(connection):
            yield callback


def _name(callback: Callable[[], object]) -> str:
    return getattr(callback, "__qualname__", None) or repr(callback)


def _recorder(alias: str, rehearsal: Rehearsal) -> Callable[..., Any]:
    def record(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        text = str(sql).strip()
        if text.split(None, 1)[:1] and text.split(None, 1)[0].upper() not in _QUIET:
            rehearsal.statements.append(f"{alias}: {text}")
        return execute(sql, params, many, context)

    return record


@contextmanager
def _captured_messages(rehearsal: Rehearsal) -> Iterator[None]:
    def take(outgoing: list[Outgoing]) -> None:
        for item in outgoing:
            about = f" about {item.subject}" if item.subject else ""
            recipients = item.message.recipients
            to = "whoever listens" if recipients is None else ", ".join(recipients)
            rehearsal.messages.append(f"{item.message.signal}{about} to {to}")

    token = outbox.diverted.set(take)
    try:
        yield
    finally:
        outbox.diverted.reset(token)


@contextmanager
def _captured_changes(rehearsal: Rehearsal) -> Iterator[None]:
    def saved(sender: type[Model], instance: Model, created: bool, **_kwargs: Any) -> None:
        rehearsal.changes.append(f"{'create' if created else 'save'} {_row(sender, instance)}")

    def deleted(sender: type[Model], instance: Model, **_kwargs: Any) -> None:
        rehearsal.changes.append(f"delete {_row(sender, instance)}")

    def related(sender: type[Model], instance: Model, action: str, **_kwargs: Any) -> None:  # noqa: ARG001 - Django's
        if action.startswith("post_"):
            verb = action.removeprefix("post_")
            rehearsal.changes.append(f"{verb} relations of {_row(type(instance), instance)}")

    pairs = ((post_save, saved), (post_delete, deleted), (m2m_changed, related))
    for signal, function in pairs:
        signal.connect(function, weak=False)
    try:
        yield
    finally:
        for signal, function in pairs:
            signal.disconnect(function)


def _row(model: type[Model], instance: Model) -> str:
    return f"{model._meta.label} {instance.pk}"  # noqa: SLF001 - Django documents it


@contextmanager
def _captured_mail(rehearsal: Rehearsal) -> Iterator[None]:
    def note(message: EmailMessage) -> None:
        rehearsal.mails.append(f"{message.subject!r} to {', '.join(map(str, message.recipients()))}")

    def send(self: EmailMessage, *_args: Any, **_kwargs: Any) -> int:
        note(self)
        return 1

    def send_messages(_self: BaseEmailBackend, messages: Sequence[EmailMessage]) -> int:
        for message in messages:
            note(message)
        return len(messages)

    for path in _paths_of_backends():
        import_string(path)
    with ExitStack() as stack:
        stack.enter_context(_replaced(EmailMessage, "send", send))
        for backend in _subclasses(BaseEmailBackend):
            if "send_messages" in vars(backend):
                stack.enter_context(_replaced(backend, "send_messages", send_messages))
        yield


def _paths_of_backends() -> list[str]:
    """Return the paths of the project's mail backends: ``MAILERS`` since Django 6.1, ``EMAIL_BACKEND`` before."""
    mailers: dict[str, dict[str, Any]] = getattr(settings, "MAILERS", {})
    if mailers:
        return [each["BACKEND"] for each in mailers.values()]
    with warnings.catch_warnings():  # which of the two settings a project has is not for a rehearsal to say
        warnings.simplefilter("ignore")
        return [settings.EMAIL_BACKEND]


def _subclasses(kind: type) -> Iterator[type]:
    yield kind
    each: type
    for each in kind.__subclasses__():
        yield from _subclasses(each)


@contextmanager
def _blocked_sockets(rehearsal: Rehearsal) -> Iterator[None]:
    def block(_self: socket.socket, address: Any) -> NoReturn:
        shown = ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)
        rehearsal.sockets.append(shown)
        raise SocketBlocked(f"a rehearsal opens no connections: {shown} is blocked")

    with (
        _replaced(socket.socket, "connect", block),
        _replaced(socket.socket, "connect_ex", block),
    ):
        yield


@contextmanager
def _replaced(owner: type, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a class inside the block; one that the class inherits is inherited again after it."""
    own = name in vars(owner)
    former = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, former)
        else:
            delattr(owner, name)

"""Capture what a receiver does while it is rehearsed: statements, rows, mail, signals, connections by sockets.

`rehearsal` uses it. Methods of sockets and of Django's mail are replaced for the whole process; outside of the
rehearsal's context they do what they did, unless the process does nothing else.
"""

from __future__ import annotations

import contextvars
import socket
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.utils.module_loading import import_string

from signalbus.sending import outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django.db.models import Model

    from signalbus.sending.outgoing import Outgoing

_QUIET: Final = frozenset({"SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK", "SHOW", "PRAGMA", "EXPLAIN"})
_is_rehearsed: Final = contextvars.ContextVar("signalbus_is_rehearsed", default=False)


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


@contextmanager
def captured_effects(rehearsal: Rehearsal, *, is_alone: bool) -> Iterator[None]:
    """Keep the signals and the mail of a receiver from leaving, and note them and the rows that it changes.

    Args:
        rehearsal: where they are noted.
        is_alone: the process does nothing else, so that threads of the receiver belong to the rehearsal too.
    """
    token = _is_rehearsed.set(True)
    try:
        with (
            _captured_messages(rehearsal),
            _captured_changes(rehearsal, is_alone=is_alone),
            _captured_mail(rehearsal, is_alone=is_alone),
        ):
            yield
    finally:
        _is_rehearsed.reset(token)


def statement_recorder(alias: str, rehearsal: Rehearsal) -> Callable[..., Any]:
    """Return a wrapper of a connection's statements that notes those that would change the database.

    Args:
        alias: of the database.
        rehearsal: where they are noted.
    """

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
def _captured_changes(rehearsal: Rehearsal, *, is_alone: bool) -> Iterator[None]:
    def note(text: str) -> None:
        if is_alone or _is_rehearsed.get():
            rehearsal.changes.append(text)

    def saved(sender: type[Model], instance: Model, created: bool, **_kwargs: Any) -> None:
        note(f"{'create' if created else 'save'} {_row(sender, instance)}")

    def deleted(sender: type[Model], instance: Model, **_kwargs: Any) -> None:
        note(f"delete {_row(sender, instance)}")

    def related(sender: type[Model], instance: Model, action: str, **_kwargs: Any) -> None:  # noqa: ARG001 - Django's
        if action.startswith("post_"):
            verb = action.removeprefix("post_")
            note(f"{verb} relations of {_row(type(instance), instance)}")

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
def _captured_mail(rehearsal: Rehearsal, *, is_alone: bool) -> Iterator[None]:
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
        stack.enter_context(_replaced(EmailMessage, "send", send, is_alone=is_alone))
        for backend in _subclasses(BaseEmailBackend):
            if "send_messages" in vars(backend):
                stack.enter_context(_replaced(backend, "send_messages", send_messages, is_alone=is_alone))
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
def blocked_sockets(rehearsal: Rehearsal, *, is_alone: bool) -> Iterator[None]:
    """Refuse new connections by sockets, and note their addresses.

    Args:
        rehearsal: where they are noted.
        is_alone: as for `captured_effects`.
    """

    def block(_self: socket.socket, address: Any) -> NoReturn:
        shown = ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)
        rehearsal.sockets.append(shown)
        raise SocketBlocked(f"a rehearsal opens no connections: {shown} is blocked")

    with (
        _replaced(socket.socket, "connect", block, is_alone=is_alone),
        _replaced(socket.socket, "connect_ex", block, is_alone=is_alone),
    ):
        yield


@contextmanager
def _replaced(owner: type, name: str, value: Callable[..., Any], *, is_alone: bool) -> Iterator[None]:
    """Replace a method of a class inside the block; one that the class inherits is inherited again after it.

    Args:
        owner: the class.
        name: of the method.
        value: what is called in its place.
        is_alone: also outside of the rehearsal's context, as in other threads.
    """
    own = name in vars(owner)
    former = getattr(owner, name)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        return value(*args, **kwargs) if is_alone or _is_rehearsed.get() else former(*args, **kwargs)

    setattr(owner, name, replaced)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, former)
        else:
            delattr(owner, name)

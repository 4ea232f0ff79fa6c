"""Show the payload of a message to people: its values in plain JSON, with secrets hidden at every depth.

No row is loaded and no class is imported: a reference is shown as label and key, a tagged value by its text. Called
by ``show``; the payload itself stays as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from django.db import transaction
from django.views.debug import SafeExceptionReporterFilter

from signalbus import conf
from signalbus.exceptions import TextError, UnknownClass
from signalbus.ledger import operations as ledger
from signalbus.services.actors import VIEW_PAYLOAD
from signalbus.services.audit_log import write_log
from signalbus.wire.values.scalars import FROM_JSON
from signalbus.wire.values.tags import Tag

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from signalbus.services.actors import Actor
    from signalbus.wire.message import Message

HIDDEN: Final = SafeExceptionReporterFilter.cleansed_substitute
_NAMES_OF_SECRETS: Final = SafeExceptionReporterFilter.hidden_settings  # Django's own: PASSWORD, TOKEN, SECRET, API …


def is_secret(key: str) -> bool:
    """Return whether the value of a key is hidden from people.

    Args:
        key: the key of a payload, or of a dict in it; Django's ``HIDDEN_SETTINGS`` and ``SIGNALBUS["REDACT"]`` decide.
    """
    return _NAMES_OF_SECRETS.search(key) is not None or key.lower() in conf.get().REDACT


def shown_payload(payload: str, *, reveal: bool = False) -> tuple[Any, Any]:
    """Return the sender and the payload of a message as plain JSON values.

    Args:
        payload: the payload as it stands in the message's text.
        reveal: show the values of secret keys too.

    Raises:
        ValueError: it is no payload of ours.
    """
    tree = json.loads(payload)
    if type(tree) is not list or len(tree) != 2:  # noqa: PLR2004 - sender and payload
        raise ValueError("not a sender and a payload")
    sender, values = tree
    shown = _Shown(reveal)
    return shown.value(sender), shown.value(values)


def payload_of(message: Message | None, *, reveal: bool = False) -> dict[str, Any] | None:
    """Return the sender and the values of a message for people, with secrets hidden; None if they cannot be read.

    Args:
        message: the message; None if its text could not be read.
        reveal: show the values of secret keys too.
    """
    if message is None:
        return None
    try:
        sender, values = shown_payload(message.payload, reveal=reveal)
    except (TextError, ValueError, TypeError):  # of a version with other tags, or cut by hand
        return None
    return {"sender": sender, "values": values}


def reveal_payload(message: Message | None, delivery: UUID, *, actor: Actor, reason: str) -> dict[str, Any] | None:
    """Return the payload of a delivery with its secrets, and write to the audit log who has seen it, and why.

    Args:
        message: the delivery's message; None if its text could not be read.
        delivery: the delivery.
        actor: who asks.
        reason: why.

    Raises:
        PermissionDenied: the actor must not see payloads.
    """
    actor.require(VIEW_PAYLOAD)
    with transaction.atomic(using=ledger.using()):
        write_log(actor, "reveal", {"delivery": str(delivery)}, reason=reason)
    return payload_of(message, reveal=True)


def origin_of(message: Message | None) -> dict[str, Any]:
    """Return who sent a message for people, with secrets hidden; nothing if that is not known.

    Args:
        message: the message; None if its text could not be read.
    """
    if message is None:
        return {}
    return {key: HIDDEN if is_secret(key) else value for key, value in message.origin.items()}


class _Shown:
    """Convert the nodes of a payload.

    Args:
        reveal: show the values of secret keys too.
    """

    def __init__(self, reveal: bool) -> None:
        self._reveal = reveal

    def value(self, node: Any) -> Any:
        """Return a node as plain JSON."""
        if isinstance(node, list):
            return [self.value(each) for each in node]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((key, inner),) = node.items()
            show = _TAGS.get(key)
            if show is not None:
                return show(self, inner)
        return self.members(node.items())

    def members(self, items: Any) -> dict[str, Any]:
        """Return the items of a dict, with secrets hidden."""
        return {
            (name := self.key(key)): HIDDEN if not self._reveal and is_secret(name) else self.value(inner)
            for key, inner in items
        }

    def key(self, node: Any) -> str:
        """Return a key as text; of a tagged one the value."""
        shown = self.value(node)
        return shown if isinstance(shown, str) else json.dumps(shown)

    def row(self, inner: Any) -> str:
        """Return a reference as label and key, with its database if it names one."""
        label, pk, *more = inner
        key = self.value(pk)
        shown = f"{label} {key if isinstance(key, (str, int)) else json.dumps(key)}"
        return f"{shown} in {more[0]}" if more and more[0] else shown

    def snapshot(self, inner: Any) -> dict[str, Any]:
        """Return a snapshot as its label and its field values."""
        label, _adding, _db, values, texts = inner
        return {"snapshot": label, **self.members([*values.items(), *texts.items()])}

    def data(self, inner: Any) -> dict[str, Any]:
        """Return a dataclass instance as its class's name and its fields."""
        name, members = inner
        return {"class": name, **self.members(members.items())}


def _scalar(tag: str) -> Callable[[_Shown, Any], Any]:
    """Return a function that shows a scalar as text, and one that this process cannot read as it travels."""

    def show(shown: _Shown, inner: Any) -> Any:
        try:
            return str(FROM_JSON[tag](inner))
        except (TextError, UnknownClass, ArithmeticError, ValueError, TypeError, LookupError):
            return shown.value(inner)

    return show


_TAGS: Final[dict[str, Callable[[_Shown, Any], Any]]] = {
    Tag.REF.key: _Shown.row,
    Tag.ROW.key: _Shown.row,
    Tag.SNAPSHOT.key: _Shown.snapshot,
    Tag.DATA.key: _Shown.data,
    Tag.DICT.key: lambda shown, inner: shown.members(inner),
    Tag.ENUM.key: lambda shown, inner: ".".join(map(shown.key, inner)),
    Tag.ANONYMOUS.key: lambda _shown, _inner: "AnonymousUser",
    **dict.fromkeys(
        (tag.key for tag in (Tag.TUPLE, Tag.SET, Tag.FROZENSET, Tag.MODEL, Tag.NAME, Tag.STORED)), _Shown.value
    ),
    **{tag: _scalar(tag) for tag in FROM_JSON},
}

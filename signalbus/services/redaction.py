"""Show the payload of a message to people: its values in plain JSON, with secrets hidden at every depth.

A secret is the value of a key whose name says so; the second of a pair that such a name begins, as of a header; the
value beside such a name; and what follows such a name in a text, as in a URL. No row is loaded and no class is
imported: a reference is shown as label and key, a tagged value by its text. Called by ``show`` and by the pages; the
payload itself stays as it is.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from django.db import transaction
from django.views.debug import SafeExceptionReporterFilter

from signalbus import conf
from signalbus.exceptions import TextError, UnknownClass
from signalbus.ledger import operations as ledger
from signalbus.services.actors import VIEW_PAYLOAD
from signalbus.services.audit_log import write_log
from signalbus.wire.values.registered_types import LIBRARY_MARK
from signalbus.wire.values.scalars import FROM_JSON
from signalbus.wire.values.tags import Tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from signalbus.services.actors import Actor
    from signalbus.wire.message import Message

HIDDEN: Final = SafeExceptionReporterFilter.cleansed_substitute
_NAMES_OF_SECRETS: Final = SafeExceptionReporterFilter.hidden_settings  # Django's own: PASSWORD, TOKEN, SECRET, API …
_COOKIES: Final = frozenset({"cookie", "cookies", "set-cookie", "sessionid"})
_NAMING: Final = frozenset({"name", "key", "field", "header", "setting", "variable"})  # keys whose value names …
_NAMED: Final = frozenset({"value", "values", "content", "data", "text", "new", "old"})  # … what these keys hold
_TEXT: Final = r"""(?:"[^"]*+"?|'[^']*+'?|[^\s&;,"'<>()\[\]{}]++)"""
# A name and what follows it, a URL's user and password, the lines of headers, a bearer's token. None of them looks back
# at what it has passed: the time that they take grows with the text alone.
_ASSIGNED: Final = re.compile(rf"(?<![\w.-])([\w.-]++)(=[ ]?){_TEXT}")
_QUOTED: Final = re.compile(rf"""(["'])([\w.-]++)(\1[ ]?:[ ]?){_TEXT}""")
_USER: Final = re.compile(r"(://[^\s/:@]*+:)[^\s/]+(?=@)")
_HEADER: Final = re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)(:[ ]?)[^\r\n]++", re.IGNORECASE)
_BEARER: Final = re.compile(r"\b(bearer[ ])[\w.~+/=-]{8,}", re.IGNORECASE)


def is_secret(key: str) -> bool:
    """Return whether the value of a key is hidden from people.

    Args:
        key: the key of a payload, or of a dict in it; Django's ``HIDDEN_SETTINGS`` and ``SIGNALBUS["REDACT"]`` decide.
    """
    lower = key.lower()
    return lower in _COOKIES or _NAMES_OF_SECRETS.search(key) is not None or lower in conf.get().REDACT


def is_secret_pair(items: Sequence[Any]) -> bool:
    """Return whether a list is a pair that begins with the name of a secret, as a header does.

    Args:
        items: the nodes of a list, tuple or set.
    """
    return len(items) == 2 and isinstance(items[0], str) and is_secret(items[0])  # noqa: PLR2004 - two


def keys_of_secrets(members: Iterable[tuple[Any, Any]]) -> set[str]:
    """Return the keys of a dict whose values are secrets: by their own name, or by a name that stands beside them.

    Args:
        members: the keys and nodes of a dict.
    """
    named = [(key, inner) for key, inner in members if isinstance(key, str)]
    names_secret = any(key.lower() in _NAMING and isinstance(inner, str) and is_secret(inner) for key, inner in named)
    return {key for key, _ in named if is_secret(key) or (names_secret and key.lower() in _NAMED)}


def text_without_secrets(text: str) -> str:
    """Return a text with the secrets hidden that it names: ``token=…``, ``"password": "…"``, ``https://user:…@host``.

    Args:
        text: any text, as a URL or an error's.
    """
    if "=" in text:
        text = _ASSIGNED.sub(lambda found: f"{found[1]}{found[2]}{HIDDEN}" if is_secret(found[1]) else found[0], text)
    if ":" in text:
        text = _QUOTED.sub(_hide_quoted, text)
        text = _USER.sub(rf"\1{HIDDEN}", text)
        text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    return _BEARER.sub(rf"\1{HIDDEN}", text)


def _hide_quoted(found: re.Match[str]) -> str:
    quote, name, colon = found.group(1, 2, 3)
    return f"{quote}{name}{colon}{HIDDEN}" if is_secret(name) else found[0]


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
    return {
        key: HIDDEN if is_secret(key) else text_without_secrets(value) if isinstance(value, str) else value
        for key, value in message.origin.items()
    }


def context_of(message: Message | None) -> dict[str, Any]:
    """Return the context that a message carries for people, with secrets hidden; nothing if it carries none.

    Args:
        message: the message; None if its text could not be read.
    """
    return {} if message is None else _Shown(reveal=False).members(message.context.items())


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
            return self.items(node)
        if isinstance(node, str):
            return self.text(node)
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((key, inner),) = node.items()
            show = _TAGS.get(key)
            if show is not None:
                return show(self, inner)
        return self.members(node.items())

    def text(self, text: str) -> str:
        """Return a text, without the secrets that it names."""
        return text if self._reveal else text_without_secrets(text)

    def items(self, node: list[Any]) -> list[Any]:
        """Return a list; of a pair that begins with the name of a secret, the second is hidden."""
        if not self._reveal and is_secret_pair(node):
            return [node[0], HIDDEN]
        return [self.value(each) for each in node]

    def members(self, items: Any) -> dict[str, Any]:
        """Return the items of a dict, with secrets hidden: by their key, or by a name beside them."""
        named = [(self.key(key), inner) for key, inner in items]
        hidden = set() if self._reveal else keys_of_secrets(named)
        return {name: HIDDEN if name in hidden else self.value(inner) for name, inner in named}

    def key(self, node: Any) -> str:
        """Return a key as text; of a tagged one the value."""
        shown = node if isinstance(node, str) else self.value(node)
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

    def typed(self, inner: Any) -> Any:
        """Return a value of a registered type as its type's name and its parts; a library's as its parts alone."""
        name, node = inner
        shown = self.value(node)
        if LIBRARY_MARK in name:
            return shown
        return {"type": name, **shown} if isinstance(shown, dict) else {"type": name, "value": shown}


def _scalar(tag: str) -> Callable[[_Shown, Any], Any]:
    """Return a function that shows a scalar as text, and one that this process cannot read as it travels."""

    def show(shown: _Shown, inner: Any) -> Any:
        try:
            return shown.text(str(FROM_JSON[tag](inner)))
        except (TextError, UnknownClass, ArithmeticError, ValueError, TypeError, LookupError):
            return shown.value(inner)

    return show


_TAGS: Final[dict[str, Callable[[_Shown, Any], Any]]] = {
    Tag.REF.key: _Shown.row,
    Tag.ROW.key: _Shown.row,
    Tag.SNAPSHOT.key: _Shown.snapshot,
    Tag.DATA.key: _Shown.data,
    Tag.VALUE.key: _Shown.typed,
    Tag.DICT.key: lambda shown, inner: shown.members(inner),
    Tag.ENUM.key: lambda shown, inner: ".".join(map(shown.key, inner)),
    Tag.ANONYMOUS.key: lambda _shown, _inner: "AnonymousUser",
    **dict.fromkeys(
        (tag.key for tag in (Tag.TUPLE, Tag.SET, Tag.FROZENSET, Tag.MODEL, Tag.NAME, Tag.STORED)), _Shown.value
    ),
    **{tag: _scalar(tag) for tag in FROM_JSON},
}

"""Write a test that replays a delivery with `signalbus.testing`: its signal, its payload, and its rows to be made.

Texts of the ledger stand in it as literals alone, so that no payload becomes code. Called by the page of a delivery.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps

from signalbus.exceptions import TextError, UnknownClass
from signalbus.pages.shown_text import short
from signalbus.registration.registry import registry
from signalbus.services.redaction import HIDDEN, is_secret_pair, keys_of_secrets, text_without_secrets
from signalbus.wire.values.scalars import FROM_JSON
from signalbus.wire.values.tags import Tag

if TYPE_CHECKING:
    from signalbus.models import Delivery
    from signalbus.wire.message import Message

MODULES: Final = {"Decimal": "decimal", "UUID": "uuid"}  # of values whose repr names their class alone
NOT_IN_NAMES: Final = re.compile(r"[\W_]+")


def replay_test(message: Message, delivery: Delivery) -> str:
    """Return a test for pytest that sends a message once more, and runs its receivers.

    Args:
        message: the delivery's message.
        delivery: the delivery.

    Raises:
        ValueError: the payload is none of ours.
    """
    written = _Written()
    _sender, values = json.loads(message.payload)
    items = values.get(Tag.DICT.key, values) if isinstance(values, dict) else {}
    pairs = list(items.items() if isinstance(items, dict) else items)
    hidden = keys_of_secrets(pairs)
    arguments = [written.argument(str(name), value, is_hidden=name in hidden) for name, value in pairs]
    signal, sender = written.signal(message.signal), written.sender(message.sender)
    name = NOT_IN_NAMES.sub("_", f"{delivery.receiver}_of_{message.signal}").strip("_").lower()
    lines = [
        f"def test_{name or 'delivery'}():",
        f"    # delivery {delivery.pk}, {delivery.state}" + (f": {short(delivery.error)}" if delivery.error else ""),
        *(f"    {row}  # with the fields that the receivers read" for _, row in written.rows.values()),
        "    with captured() as sent:",
        f"        {signal}.send(",
        *(f"            {each}" for each in (f"sender={sender},", *arguments)),
        "        )",
        "        sent.deliver_all()  # runs the receivers, and raises what one of them raises",
    ]
    imports = ["import pytest", *sorted({"from signalbus.testing import captured", *written.imports})]
    return "\n".join([*imports, "", "", "@pytest.mark.django_db", *lines, ""])


@dataclass(slots=True)
class _Written:
    """What the test imports and makes.

    Args:
        imports: the lines that import what it names.
        rows: by model and key, the variable of a row and the statement that makes it.
        notes: what the reader has to add to the argument that is being written.
    """

    imports: set[str] = field(default_factory=set)
    rows: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def signal(self, name: str) -> str:
        """Return the signal's name in the module that declares it, which is imported."""
        wanted = registry.signal(name)
        for module in list(sys.modules.values()):
            if wanted is not None and getattr(module, "__name__", "").endswith("signals"):
                found = next((key for key, value in vars(module).items() if value is wanted and key.isidentifier()), "")
                if found:
                    self.imports.add(f"from {module.__name__} import {found}")
                    return found
        self.imports.add("from signalbus import Signal")
        return f"Signal({name!r})"

    def sender(self, name: str | None) -> str:
        """Return the sender: a model, or nothing."""
        return self.model(name or "") or "None"

    def model(self, label: str) -> str:
        """Return the name of a model, which is imported; empty if this process knows none of this label."""
        try:
            found = apps.get_model(label)
        except (LookupError, ValueError):
            return ""
        self.imports.add(f"from {found.__module__} import {found.__name__}")
        return str(found.__name__)

    def argument(self, name: str, node: Any, *, is_hidden: bool) -> str:
        """Return a line of the call; without the value if it is hidden."""
        self.notes = []
        value = repr(HIDDEN) if is_hidden else self.value(node)
        is_plain = name.isidentifier() and not keyword.iskeyword(name)
        line = f"{name}={value}," if is_plain else f"**{{{name!r}: {value}}},"
        return f"{line}  # {'; '.join(map(short, self.notes))}" if self.notes else line

    def value(self, node: Any) -> str:
        """Return a node of the payload as Python."""
        if isinstance(node, str):
            return repr(text_without_secrets(node))
        if isinstance(node, list):
            return f"[{', '.join(self.items(node))}]"
        if not isinstance(node, dict):
            return repr(node)
        if len(node) == 1:
            ((key, inner),) = node.items()
            if key in _TAGS or key in FROM_JSON:
                return self.tagged(key, inner)
        return self.members(node.items())

    def items(self, nodes: list[Any]) -> list[str]:
        """Return the items of a list; of a pair that begins with the name of a secret, the second is hidden."""
        return [self.value(nodes[0]), repr(HIDDEN)] if is_secret_pair(nodes) else [self.value(each) for each in nodes]

    def tagged(self, key: str, inner: Any) -> str:
        """Return a value that JSON has no type for."""
        if key in FROM_JSON:
            try:
                return self.scalar(FROM_JSON[key](inner))
            except (TextError, UnknownClass, ArithmeticError, ValueError, TypeError, LookupError):
                return self.unknown(key)
        if key in {Tag.REF.key, Tag.ROW.key}:
            return self.row(*inner[:2])
        if key == Tag.SNAPSHOT.key:
            return self.snapshot(*inner)
        if key == Tag.DICT.key:
            return self.members(inner)
        if key == Tag.TUPLE.key:
            return f"({''.join(f'{each}, ' for each in self.items(inner))})"
        if key in {Tag.SET.key, Tag.FROZENSET.key}:
            return f"{key[1:]}([{', '.join(self.items(inner))}])"
        if key == Tag.MODEL.key and isinstance(inner, str):
            return self.model(inner) or self.unknown(inner)
        if key == Tag.VALUE.key:
            return self.unknown(f"a value of the type {inner[0]!r}")
        return self.unknown(key)

    def scalar(self, value: object) -> str:
        """Return a value of the standard library, whose class is imported."""
        text, kind = repr(value), type(value)
        if isinstance(value, bytes) and text_without_secrets(text) != text:
            return self.unknown("bytes with a secret")
        if kind.__module__ == "datetime" or text.startswith("datetime."):
            self.imports |= {"import datetime", *({"import zoneinfo"} if "zoneinfo." in text else ())}
        elif kind.__name__ in MODULES:
            self.imports.add(f"from {MODULES[kind.__name__]} import {kind.__name__}")
        return repr(text_without_secrets(value)) if isinstance(value, str) else text

    def row(self, label: str, key: Any) -> str:
        """Return the variable of a row, which the test makes first."""
        model = self.model(label)
        if not model:
            return self.unknown(label)
        shown = self.value(key)
        if (model, shown) not in self.rows:
            variable = NOT_IN_NAMES.sub("_", f"{model}_{shown}").strip("_").lower()
            if any(variable == taken for taken, _ in self.rows.values()):
                variable = f"{variable}_{len(self.rows)}"
            self.rows[model, shown] = variable, f"{variable} = {model}.objects.create(pk={shown})"
        return self.rows[model, shown][0]

    def snapshot(self, label: str, *parts: Any) -> str:
        """Return an instance that is not saved, with the values that were sent."""
        model, values = self.model(label), parts[2]
        named = [(name, inner) for name, inner in values.items() if name.isidentifier()]
        hidden = keys_of_secrets(named)
        shown = (f"{name}={HIDDEN!r}" if name in hidden else f"{name}={self.value(inner)}" for name, inner in named)
        return f"{model}({', '.join(shown)})" if model else self.unknown(label)

    def members(self, items: Any) -> str:
        """Return a dict."""
        pairs = list(items)
        hidden = keys_of_secrets(pairs)
        shown = (
            f"{self.value(key)}: {HIDDEN!r}" if isinstance(key, str) and key in hidden
            else f"{self.value(key)}: {self.value(inner)}" for key, inner in pairs
        )  # fmt: skip
        return f"{{{', '.join(shown)}}}"

    def unknown(self, what: str) -> str:
        """Return a place that the reader fills in."""
        self.notes.append(f"here was {what}")
        return "None"


_TAGS: Final = frozenset(tag.key for tag in Tag)

"""Build a template of the queue item that Celery writes for our task, with gaps for the ids and the texts.

`fast_path` makes one for each queue, by recording what Celery would push, and fills it for each message (decision
0030).
"""

from __future__ import annotations

import json
import os
import re
from binascii import a2b_base64, b2a_base64
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from kombu import Producer

from signalbus.broker.envelope import Tree, address, envelope
from signalbus.compat.kombu_internals import pushed_by
from signalbus.wire.json_writer import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

# Placeholders for the gaps; nothing that Celery writes looks like one of them.
ID = "5a6e1f00-0000-4000-8000-000000000001"
ROOT = "5a6e1f00-0000-4000-8000-000000000002"
PARENT = "5a6e1f00-0000-4000-8000-000000000003"
TEXT = "5a6e1f00-text"
ONE = "(1 texts)"


class NoFastPathError(Exception):
    """A queue or an app whose messages only Celery can write; the text says why."""


class Cut(NamedTuple):
    """A queue item as an argument of a Redis command, with ``%``-formats in its gaps.

    Args:
        item: the format, for its size, body, id, root, number of texts, parent (or nothing), id and delivery tag.
        size: how many bytes it has with its ids, but without body, root, parent and number.
        opening: the body's JSON, up to the texts.
        closing: the rest of it.
    """

    item: bytes
    size: int
    opening: bytes
    closing: bytes


class QueueItemTemplate:
    """The template of the messages to one queue.

    Args:
        app: the app whose worker will consume them.
        queue: the queue's name; it is not declared here.
        channel: of kombu's Redis transport, for this use only.

    Raises:
        NoFastPathError: Celery's own way must be taken.
    """

    def __init__(self, app: Celery, queue: str, channel: Any) -> None:
        key, self._alone = _cut_twice(app, queue, channel, None)
        _, self._within = _cut_twice(app, queue, channel, Tree(ROOT, PARENT))
        self._new_id = _Ids()
        self._command = b"*%%d\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (len(key), key.replace(b"%", b"%%"))
        self._one = self._command % 3

    def command(self, batches: Sequence[Sequence[str]], tree: Tree | None) -> bytes:
        """Write the command that pushes messages, all of them or none.

        Args:
            batches: for each message its signed texts.
            tree: their position in the tree of Celery's tasks, or None.
        """
        if len(batches) == 1:
            return self._one + self._item(batches[0], tree)
        return self._command % (2 + len(batches)) + b"".join([self._item(texts, tree) for texts in batches])

    def _item(self, texts: Sequence[str], tree: Tree | None) -> bytes:
        """Return a message as the queue's list stores it, with unique ids, and its size before it."""
        cut = self._alone if tree is None else self._within
        inner = quoted(texts[0]) if len(texts) == 1 else ", ".join([quoted(text) for text in texts])
        body = b2a_base64(b"%b%b%b" % (cut.opening, inner.encode("ascii"), cut.closing), newline=False)
        # A delivery tag is never an id: two publications of one message would overwrite each other among what a worker
        # has not acknowledged, and the first acknowledgement would delete both.
        id_, tag = self._new_id(), self._new_id()
        number = b"%d" % len(texts)
        size = cut.size + len(body) + len(number)
        if tree is None:
            return cut.item % (size, body, id_, id_, number, id_, tag)
        root, parent = (quoted(value)[1:-1].encode("ascii") for value in tree)
        return cut.item % (size + len(root) + len(parent), body, id_, root, number, parent, id_, tag)


class _Ids:
    """Make unique ids in the form of a UUID: a random beginning, then numbers that start at a random one."""

    def __init__(self) -> None:
        self._beginning = str(uuid4())[:-12].encode()
        self._numbers = count(int.from_bytes(os.urandom(5)))

    def __call__(self) -> bytes:
        return b"%b%012x" % (self._beginning, next(self._numbers))


def _cut_twice(app: Celery, queue: str, channel: Any, tree: Tree | None) -> tuple[bytes, Cut]:
    cut = _cut(app, queue, channel, tree)
    if _cut(app, queue, channel, tree) != cut:  # a time, a number, a signature: each message needs its own
        raise NoFastPathError("what Celery writes differs from message to message in more than its ids")
    return cut


def _cut(app: Celery, queue: str, channel: Any, tree: Tree | None) -> tuple[bytes, Cut]:
    """Let Celery and kombu write a message, and cut gaps for its ids and its text."""
    if channel.body_encoding != "base64":
        raise NoFastPathError(f"the transport's body_encoding is {channel.body_encoding!r}, not base64")
    message = envelope(app, [TEXT], ID, tree) | address(app, queue) | {"declare": []}
    headers = dict(message["headers"])
    try:
        key, item = pushed_by(channel, lambda channel: Producer(channel, auto_declare=False).publish(**message))
    except ValueError as error:
        raise NoFastPathError(str(error)) from error
    found = re.search(r'"body": "([^"]*)"', item)
    tag = re.search(r'"delivery_tag": "([^"]*)"', item)
    if found is None or tag is None:
        raise NoFastPathError("what Celery writes has no body or no delivery tag where they are looked for")
    opening, _, closing = a2b_base64(found[1]).partition(quoted(TEXT).encode())
    if not closing:
        raise NoFastPathError("the body is not plain JSON: task_compression, or a serializer of somebody's")
    if json.loads(item)["headers"] != headers:  # of this moment: each message after it would bear them
        raise NoFastPathError("somebody puts headers of their own on what kombu publishes, as a tracer does")
    root, parent = (ID, []) if tree is None else (ROOT, [PARENT])
    format_ = _format(item, [found[1], ID, root, ONE, *parent, ID, tag[1]])
    ids = 3 * len(ID) + (len(ID) if tree is None else 0)
    size = len(format_.replace(b"%b", b"").replace(b"%%", b"%")) + ids
    return key.encode(), Cut(b"$%d\r\n" + format_ + b"\r\n", size, opening, closing)


def _format(item: str, fields: Sequence[str]) -> bytes:
    """Make a ``%``-format of an item.

    Args:
        item: the item that Celery wrote.
        fields: the parts to replace, in their order in the item.

    Raises:
        NoFastPathError: they occur in another order, or not exactly once.
    """
    pattern = "|".join(re.escape(field) for field in dict.fromkeys(fields))
    if re.findall(pattern, item) != list(fields):
        raise NoFastPathError("what Celery writes has its ids elsewhere than this version of signalbus knows")
    marked = re.sub(pattern, lambda match: "(%b texts)" if match[0] == ONE else "%b", item.replace("%", "%%"))
    return marked.encode("ascii")

"""The message: one sending of a signal, and the body of text that it travels as."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field, fields, make_dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from signalbus.exceptions import Garbage, PayloadError, UnknownVersion
from signalbus.wire.reading import reader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A message bears the oldest version that can read it, so that an older worker parks no more than it must.
VERSION: Final = "1"
NEWER: Final = "2"  # with "$row", or a sender that has no row
_VERSIONS: Final = frozenset({VERSION, NEWER})
# What a header may take beside the payload. The signer adds it to the payload's limit, so that nothing that could be
# sent is too large for the worker.
HEADER_BYTES: Final = 64 * 1024

_NUMBER: Final = re.compile("[0-9]{1,9}")
_KINDS: Final = {
    **dict.fromkeys(["i", "s", "f", "l", "o", "u", "k"], str),
    **dict.fromkeys(["r", "p"], list),
    **dict.fromkeys(["d", "c"], bool),
    "t": int,
    "x": dict,
}
_BEGINNING: Final = ((1 << 64) - 1) << 64  # of a UUID: its time, if it has one
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_write = json.JSONEncoder(ensure_ascii=True, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_read = reader("{")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One sending of a signal: the immutable value that travels.

    Args:
        id: a UUIDv7, made by :func:`uuid7`; stable over everything that happens to the message.
        signal: the signal's name.
        payload: what :func:`signalbus.wire.codec.encode` made of sender and payload; opaque here.
        version: the oldest version of the format that can read the payload, as the codec says.
        sender: the sender's stable name for look-ups (:func:`signalbus.wire.references.name_of`).
        recipients: the receivers' ids; None for an open message, whose receivers the worker looks up.
        ledger: the alias of the database that keeps this message's rows.
        durable: whether rows are written before anything goes wrong.
        recorded: whether rows exist now, so that the worker must claim them.
        sent_at: when ``send()`` was called, aware, by the sender's clock.
        path: the signals' names from the root of the cascade to this message's parent.
        root: the id of the message that began the cascade; its own id for a root.
        parent: the id of the message whose receiver sent this one.
        ordering_key: messages with the same key are handed over in the order of their sending.
        trace: the trace context, as text headers.
    """

    id: UUID
    signal: str
    payload: str
    version: str = VERSION
    sender: str | None = None
    recipients: tuple[str, ...] | None = None
    ledger: str = "default"
    durable: bool = True
    recorded: bool = False
    sent_at: datetime
    path: tuple[str, ...] = ()
    root: UUID
    parent: UUID | None = None
    ordering_key: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def depth(self) -> int:
        """How many messages stand between the root of the cascade and this one; 0 for a root."""
        return len(self.path)


# A message that is not frozen yet. It is filled at once, where a frozen one takes a call for each of its fields, which
# was a fifth of what reading a message costs.
_Thawed: Any = make_dataclass("_Thawed", [each.name for each in fields(Message)], slots=True)


def uuid7() -> UUID:
    """Make a UUIDv7 (RFC 9562, with its method 3 for the time below a millisecond); the stdlib has none before 3.14."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    noise = int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=(milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | noise)


def delivery_id(message: UUID, receiver: str) -> UUID:
    """Return the id of a delivery: it follows from what is delivered to whom, so it is the same over all attempts.

    It begins as the message's, and so is in the order of time: a database that is asked for keys without order grows
    slower with what it holds (docs/decisions/0027).
    """
    rest = int.from_bytes(blake2b(message.bytes + receiver.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return UUID(int=message.int & _BEGINNING | 0b10 << 62 | rest >> 2)


def to_body(message: Message) -> str:
    """Write a message as the body of a text: version, header and payload, a line each; ASCII only.

    Raises:
        PayloadError: the header alone is over 64 KiB (far too many recipients, or a sender's name without end).
    """
    header = _write(_header(message))
    if len(header) > HEADER_BYTES:
        raise PayloadError(
            f"the header takes {len(header)} bytes, {HEADER_BYTES} are allowed: connect fewer receivers, "
            "or shorten the sender's name, the ordering key or the trace context"
        )
    return f"{message.version}\n{header}\n{message.payload}"


def _header(message: Message) -> dict[str, Any]:
    """Give the header's items; those that say what is assumed without them are left out."""
    own = message.id
    items: dict[str, Any] = {
        "i": own.hex,
        "s": message.signal,
        "t": (message.sent_at - _EPOCH) // _MICROSECOND,
        "f": message.sender,
        "r": message.recipients,
        "l": None if message.ledger == "default" else message.ledger,
        "d": None if message.durable else False,
        "c": message.recorded or None,
        "p": message.path or None,
        "o": None if message.root == own else message.root.hex,
        "u": message.parent and message.parent.hex,
        "k": message.ordering_key,
        "x": dict(message.trace) or None,
    }
    return {key: value for key, value in items.items() if value is not None}


def from_body(body: str) -> Message:
    """Read a message from a verified body; keys of the header that this version does not know are ignored.

    Raises:
        UnknownVersion: a newer version wrote it.
        Garbage: it breaks the format.
    """
    version, _, rest = body.partition("\n")
    if version not in _VERSIONS:
        if _NUMBER.fullmatch(version):
            raise UnknownVersion(version, body)
        raise Garbage("the body does not start with a version")
    header, newline, payload = rest.partition("\n")
    if not newline:
        raise Garbage("the body has no header, or no payload")
    try:
        return _message(version, _read(header), payload)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise Garbage(f"the header cannot be read: {type(error).__name__}") from error


def _message(version: str, header: Any, payload: str) -> Message:
    for name, value in header.items():
        if type(value) is not _KINDS.get(name, type(value)):
            raise TypeError(name)
    get = header.get
    key = UUID(hex=header["i"])
    recipients, path, root, parent, trace = get("r"), get("p"), get("o"), get("u"), get("x")
    message = _Thawed(
        key,
        header["s"],
        payload,
        version,
        get("f"),
        None if recipients is None else _texts(recipients),
        get("l", "default"),
        get("d", True),
        get("c", False),
        _EPOCH + timedelta(0, 0, header["t"]),
        () if path is None else _texts(path),
        key if root is None else UUID(hex=root),
        None if parent is None else UUID(hex=parent),
        get("k"),
        {} if trace is None else _trace(trace),
    )
    message.__class__ = Message
    return message  # type: ignore[no-any-return]  # it is one now


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    for value in values:
        if type(value) is not str:
            raise TypeError
    return tuple(values)


def _trace(value: dict[str, Any]) -> dict[str, str]:
    _texts(list(value.values()))
    return value

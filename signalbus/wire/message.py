"""Define the message, one sending of a signal, and write and read the body of its text (decisions 0001, 0002, 0021).

The payload in it is an opaque text here: `codec` writes it. The body is signed by `signing` when it is published.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from signalbus.core.fast_instances import unfrozen_class, uuid_from
from signalbus.exceptions import Garbage, UnknownVersion
from signalbus.wire.headers import HEADING_KEYS, Heading, KnownHeadings, lineage, split, surroundings
from signalbus.wire.json_reader import reader
from signalbus.wire.values.tags import FIRST, Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

# A message bears the oldest version that can read it, so that an older worker parks no more than it must.
VERSION: Final = str(FIRST)
CONTEXT_VERSION: Final = "3"  # of a message with a context that is to be restored
# Of a payload whose version is above 1: an older worker would give its receivers another payload than they take.
PAYLOAD_VERSION: Final = "5"
_VERSIONS: Final = frozenset({VERSION, CONTEXT_VERSION, PAYLOAD_VERSION, *(str(tag.since) for tag in Tag)})

_NUMBER: Final = re.compile("[0-9]{1,9}")
_KINDS: Final = {
    **dict.fromkeys(["i", "s", "f", "l", "o", "u", "k"], str),
    **dict.fromkeys(["r", "p"], list),
    **dict.fromkeys(["d", "c"], bool),
    **dict.fromkeys(["t", "v"], int),
    **dict.fromkeys(["x", "e", "w"], dict),
}
_VERSION_7: Final = 7 << 12  # in a UUID's first half
_VARIANT: Final = 0b10 << 62  # of a UUID's second half
_RANDOM_BITS: Final = 80  # of a UUIDv7, behind its time in milliseconds
_48_BITS: Final = (1 << 48) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_read = reader("{")
_headings = KnownHeadings()
_shared = attrgetter("signal", "sender", "recipients", "ledger", "durable", "recorded", "payload_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One sending of a signal, as an immutable value.

    Args:
        id: a UUIDv7, made by :func:`uuid7`; stable for the life of the message.
        signal: the signal's name.
        payload: sender and payload as :func:`signalbus.wire.codec.encode` wrote them; opaque here.
        version: the oldest version of the format that can read the payload, as the codec says.
        sender: the sender's stable name for look-ups (:func:`signalbus.wire.values.class_names.name_of`).
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
        context: the context of the sender, by the names of the carriers that restore it (``SIGNALBUS["CARRY"]``).
        origin: who sent it, for people: ids of a request and a user (``SIGNALBUS["ORIGIN"]``).
        payload_version: the version of the payload, as the signal was declared with it where it was sent.
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
    context: Mapping[str, Any] = field(default_factory=dict, hash=False)
    origin: Mapping[str, Any] = field(default_factory=dict, hash=False)
    payload_version: int = 1

    @property
    def depth(self) -> int:
        """The number of messages between the root of the cascade and this one; 0 for a root."""
        return len(self.path)

    @property
    def is_ordered(self) -> bool:
        """Whether its deliveries are ordered; one without rows, as in tests, is delivered as it comes."""
        return self.ordering_key is not None and self.recorded

    def for_recipients(self, recipients: Iterable[str] | None, *, recorded: bool | None = None) -> Message:
        """Return the same message for some of its recipients: its id stays, and so do the ids of their deliveries.

        Args:
            recipients: the receivers' ids; None for an open message.
            recorded: whether rows exist by now; None: as before.
        """
        return replace(
            self,
            recipients=None if recipients is None else tuple(recipients),
            recorded=self.recorded if recorded is None else recorded,
        )


_Unfrozen: Any = unfrozen_class(Message)


def stamp() -> tuple[str, int]:
    """Make a new message's id, a UUIDv7 in hex, and say when that was, in microseconds since 1970.

    As RFC 9562 has it, with its method 3 for the time below a millisecond; the stdlib has none before 3.14.
    """
    now = time.time_ns()
    milliseconds, rest = divmod(now, 1_000_000)
    noise = int.from_bytes(os.urandom(8)) >> 2 | _VARIANT
    first = (milliseconds & _48_BITS) << 16 | _VERSION_7 | (rest << 12) // 1_000_000
    # Through bytes, which is quicker than to format a number in hex, and each message waits for it.
    return (first << 64 | noise).to_bytes(16).hex(), now // 1000


def uuid7() -> UUID:
    """Make a UUIDv7."""
    return uuid_from(stamp()[0])


def age_of(message: UUID) -> float:
    """Return how many seconds ago a message was made, by its id and this process's clock.

    Args:
        message: the id, as `uuid7` makes it.
    """
    return time.time() - (message.int >> _RANDOM_BITS) / 1000


@lru_cache(maxsize=256)  # of the deliveries that are run now: what ends an attempt, and its listeners, ask again
def delivery_id(message: UUID, receiver: str) -> UUID:
    """Return the id of a delivery, derived from the message and the receiver, so that all attempts have the same.

    It begins as the message's id, and so is in the order of time: lookups of unordered keys grow slower as a table
    grows (decision 0027).
    """
    return uuid_from(delivery_hex(message.hex, receiver))


def delivery_hex(message: str, receiver: str) -> str:
    """Return the id of a delivery in hex, as `delivery_id` derives it, from a message's id in hex.

    Args:
        message: the message's id.
        receiver: the receiver's.
    """
    seed = bytes.fromhex(message) + receiver.encode("utf-8", "surrogatepass")
    rest = int.from_bytes(blake2b(seed, digest_size=8).digest()) >> 2 | _VARIANT
    return message[:16] + rest.to_bytes(8).hex()


def to_body(message: Message) -> str:
    """Write a message as the body of a text.

    Raises:
        PayloadError: as `Heading.body`.
    """
    root = None if message.root == message.id else message.root
    more = lineage(message.path, root, message.parent, message.ordering_key, message.trace)
    more += surroundings(message.context, message.origin)
    heading = Heading(
        signal=message.signal,
        sender=message.sender,
        recipients=message.recipients,
        ledger=message.ledger,
        durable=message.durable,
        recorded=message.recorded,
        payload_version=message.payload_version,
    )
    sent_at = (message.sent_at - _EPOCH) // _MICROSECOND
    return heading.body(message.id.hex, sent_at, message.payload, message.version, more)


def is_known_version(version: int) -> bool:
    """Return whether this code reads messages of a version of the format."""
    return str(version) in _VERSIONS


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
        return _read_message(version, header, payload)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise Garbage(f"the header cannot be read: {type(error).__name__}") from error


def _read_message(version: str, header: str, payload: str) -> Message:
    """Read a header; one that differs only in id and time from another that was read, for a third of the time."""
    id_, moment, heading = split(header)
    known = _headings.get(heading)
    if known is not None:
        signal, sender, recipients, ledger, durable, recorded, payload_version = known
        key, sent_at = uuid_from(id_), _sent_at(int(moment))
        return _made(
            key, signal, payload, version, sender, recipients, ledger, durable, recorded, sent_at,
            (), key, None, None, {}, {}, {}, payload_version,
        )  # fmt: skip
    read = _read(header)
    message = _message(version, read, payload)
    if HEADING_KEYS.issuperset(read) and (id_, moment) == (read["i"], str(read["t"])):
        _headings.add(heading, _shared(message))
    return message


def trace_of(body: str) -> Mapping[str, str] | None:
    """Return the trace of a body that this process has just written; None of a marker, which has no header."""
    _, _, rest = body.partition("\n")
    header, newline, _ = rest.partition("\n")
    return _read(header).get("x", {}) if newline else None


def _message(version: str, header: Any, payload: str) -> Message:
    for name, value in header.items():
        if type(value) is not _KINDS.get(name, type(value)):
            raise TypeError(name)
    get = header.get
    key = uuid_from(header["i"])
    recipients, path, root, parent, trace, context = get("r"), get("p"), get("o"), get("u"), get("x"), get("e")
    return _made(
        key,
        header["s"],
        payload,
        version,
        get("f"),
        None if recipients is None else _texts(recipients),
        get("l", "default"),
        get("d", True),
        get("c", False),
        _sent_at(header["t"]),
        () if path is None else _texts(path),
        key if root is None else uuid_from(root),
        None if parent is None else uuid_from(parent),
        get("k"),
        {} if trace is None else _trace(trace),
        {} if context is None else context,
        get("w", {}),
        get("v", 1),
    )


def _made(*fields: Any) -> Message:
    message = _Unfrozen(*fields)
    message.__class__ = Message
    return message  # type: ignore[no-any-return]  # it is one now


def _sent_at(microseconds: int) -> datetime:
    return _EPOCH + timedelta(0, 0, microseconds)


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    for value in values:
        if type(value) is not str:
            raise TypeError
    return tuple(values)


def _trace(value: dict[str, Any]) -> dict[str, str]:
    _texts(list(value.values()))
    return value

"""Coalesce the texts of a batch into one Celery message: one request, one round trip to a child, one line in the log.

`batching` reads messages with it, and `channel` merges them (decision 0032). Only messages that are plainly ours are
coalesced. The content of each stays in its own texts, which are verified one by one, as ever. Any other message is
delivered alone and unchanged.
"""

from __future__ import annotations

import json
import uuid
from binascii import a2b_base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from signalbus.transport.broker_claims import BATCH, CLAIM
from signalbus.wire.unverified_text import signal_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from signalbus.transport.broker_claims import Claimed

MOST_TEXTS: Final = 100  # in one message; as the publisher's

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_TEXT: Final = frozenset({str})
# The parts that the publisher writes. More of them may mean something to Celery or a tracer, for this message alone.
_PARTS: Final = frozenset({"body", "content-encoding", "content-type", "headers", "properties"})
_HEADERS: Final = frozenset(
    {"argsrepr", "id", "ignore_result", "kwargsrepr", "lang", "origin", "parent_id", "root_id", "task"}
)
_PROPERTIES: Final = frozenset(
    {"body_encoding", "correlation_id", "delivery_info", "delivery_mode", "delivery_tag", "priority"}
)
_decode = json.JSONDecoder().decode
_UNREADABLE: Final = (AttributeError, KeyError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class BatchMember:
    """A member of a batch: a claimed message, as far as it has been read.

    Args:
        claimed: the claim.
        texts: its texts; none if it is not plainly ours.
        headers: Celery's, if it is.
    """

    claimed: Claimed
    texts: tuple[str, ...] = ()
    headers: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> list[tuple[str, str | None]]:
        """The keys of its texts' runtime estimates."""
        return keys_of(self.texts, self.claimed.queue)


def keys_of(texts: Sequence[str], queue: str) -> list[tuple[str, str | None]]:
    """Return the keys of the runtime estimates of texts: the queue, and the signal that each text claims to be of."""
    return [(queue, signal_of(text)) for text in texts]


def read(claimed: Claimed, task: str) -> BatchMember:
    """Read a claimed message, if it is plainly ours and was not delivered before.

    Args:
        claimed: the claim; anybody who can write to the broker may have chosen its bytes.
        task: the task of our messages.
    """
    try:
        found = _read(claimed, task)
    except _UNREADABLE:
        found = None
    return found or BatchMember(claimed)


def _read(claimed: Claimed, task: str) -> BatchMember | None:
    message = _decode(claimed.raw.decode())
    headers, properties = message["headers"], message["properties"]
    origin = properties["delivery_info"]
    plain = (
        headers["task"] == task
        and message.keys() <= _PARTS
        and headers.keys() <= _HEADERS
        and properties.keys() <= _PROPERTIES
        and origin == {"exchange": "", "routing_key": claimed.queue}
        and _SCALARS.issuperset(map(type, headers.values()))
        and type(headers["id"]) is str
        and (message["content-type"], message["content-encoding"]) == ("application/json", "utf-8")
        and properties["body_encoding"] == "base64"
    )
    if not plain:
        return None
    arguments, named, embedded = _decode(a2b_base64(message["body"]).decode())
    (texts,) = arguments
    if named or embedded or type(texts) is not list or not _TEXT.issuperset(map(type, texts)):
        return None
    return BatchMember(claimed, tuple(texts), headers) if 0 < len(texts) <= MOST_TEXTS else None


class Merged(dict[str, Any]):
    """The one message of a batch, as kombu takes it.

    Args:
        members: the members of the batch; each is plainly ours.
    """

    def __init__(self, members: Sequence[BatchMember]) -> None:
        self.members: list[BatchMember] = list(members)
        first = self.members[0]
        headers = _headers_of(self.members)
        super().__init__(
            body="",
            headers=headers,
            properties={
                "correlation_id": headers["id"],
                "delivery_info": {"exchange": "", "routing_key": first.claimed.queue},
                "delivery_tag": tag_of(self.members),
                "body_encoding": None,
            },
        )
        self["content-type"], self["content-encoding"] = "application/json", "utf-8"


def tag_of(members: Sequence[BatchMember]) -> str:
    """Return the delivery tag of a batch: that of a single member, or one for all members."""
    first = members[0].claimed.tag
    return first if len(members) == 1 else BATCH + first.removeprefix(CLAIM)


def _headers_of(members: Sequence[BatchMember]) -> dict[str, Any]:
    own = members[0].headers
    if len(members) == 1:
        return own
    id_ = str(uuid.uuid4())
    return {
        "lang": "py",
        "task": own["task"],
        "id": id_,
        "root_id": id_,
        "argsrepr": f"({sum(len(member.texts) for member in members)} texts)",
        "kwargsrepr": "{}",
        "ignore_result": True,
    }

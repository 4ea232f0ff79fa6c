"""Queue items in the publisher's form, for the tests of batches."""

from __future__ import annotations

import json
import uuid
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from signalbus import celery, conf
from signalbus.broker.envelope import envelope
from signalbus.transport import coalescing
from signalbus.transport.broker_claims import Claimed
from signalbus.wire.message import Message, to_body, uuid7

if TYPE_CHECKING:
    from signalbus.transport.coalescing import BatchMember

QUEUE = "signalbus"


def text_of(signal: str = "shop.paid", recipients: tuple[str, ...] | None = ("r",), **header: Any) -> str:
    """Make a signed text."""
    key = uuid7()
    message = Message(
        id=key,
        signal=signal,
        payload='{"a":"\\""}',
        root=key,
        sent_at=datetime.now(UTC),
        recipients=recipients,
        **header,
    )
    return conf.signer().sign(to_body(message))


def item(*texts: Any, queue: str = QUEUE, **changes: Any) -> dict[str, Any]:
    """Make what kombu puts into a list for a message of these texts; `changes` replace parts of it."""
    from signalbus.celery import get_app

    made = envelope(get_app(), [], str(uuid.uuid4()), None)
    return {
        "body": b64encode(json.dumps([[list(texts)], {}, {}]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": made["headers"],
        "properties": {
            "correlation_id": made["correlation_id"],
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
        **changes,
    }


def claim(made: object, queue: str = QUEUE, tag: str = "tag") -> Claimed:
    """Make a claim of an item."""
    raw = made if isinstance(made, bytes) else json.dumps(made).encode()
    return Claimed(raw, queue, tag)


def read(claimed: Claimed) -> BatchMember:
    """Read a claim, as a worker does."""
    return coalescing.read(claimed, celery.TASK_NAME)

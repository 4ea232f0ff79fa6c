"""Quarantine: items that are no messages, and keys of other types, under every key that a worker reads."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from signalbus.transport import unacked
from signalbus.transport.broker_claims import Claimed
from tests.integration.claiming_consumer import ClaimingConsumer
from tests.integration.test_claiming import client, is_over, publish, url

__all__ = ["client", "url"]


def message(**changes: Any) -> bytes:
    """Make a queue item like kombu's; None leaves a part out."""
    whole = {
        "body": base64.b64encode(b'"good"').decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {},
        "properties": {
            "delivery_tag": "x",
            "delivery_info": {"exchange": "", "routing_key": "work"},
            "priority": 0,
            "body_encoding": "base64",
        },
        **changes,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


PROPERTIES: dict[str, Any] = json.loads(message())["properties"]
ITEMS: dict[str, bytes] = {
    "nothing": b"",
    "prose": b"garbage",
    "null": b"null",
    "a number": b"7",
    "a number beyond Python's": b"9" * 5000,
    "a text": b'"text"',
    "a list": b"[1, 2]",
    "an empty mapping": b"{}",
    "no UTF-8": b'{"body": "\xff\xfe"}',
    "nested beyond reading": b"[" * 100_000,
    "cut short": message()[:-9],
    "two in one": message() + b"," + message(),
    "no properties": message(properties=None),
    "properties that are a list": message(properties=[]),
    "headers that are a text": message(headers="x"),
    "no body": message(body=None),
    "a body that is a list": message(body=["x"]),
    "a body that is no base64": message(body="abc"),
    "a body in an unknown encoding": message(properties={**PROPERTIES, "body_encoding": "rot13"}),
    "an encoding that is a list": message(properties={**PROPERTIES, "body_encoding": ["base64"]}),
    "kombu's own tags": b'{"__type__": "datetime", "__value__": "never"}',
    "kombu's own tags, unknown": b'{"__type__": [], "__value__": {}}',
}


def quarantined(client: Any) -> list[dict[str, Any]]:
    """Return the quarantined items, the last one first."""
    return [json.loads(item) for item in client.lrange(unacked.QUARANTINE_LIST, 0, -1)]


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_that_is_no_message_is_quarantined(name, url, client, caplog):
    """The place, the fault and the size of the item are recorded; the next item is delivered."""
    client.lpush("work", ITEMS[name])
    publish(url, "good")
    with ClaimingConsumer(url) as claiming:
        claiming.run(lambda: claiming.messages, timeout=1)
        claiming.acknowledge()
        assert claiming.bodies() == ["good"]
        (kept,) = quarantined(client)
        assert (kept["place"], kept["bytes"]) == ("work", len(ITEMS[name]))
        assert is_over(client)
    assert "set aside" in caplog.text
    assert unacked.QUARANTINE_LIST in caplog.text


@pytest.mark.parametrize("name", ITEMS)
def test_an_invalid_claim_is_quarantined(name, url, client):
    """Any worker reads the keys of claims after its visibility timeout."""
    # The last one names a key that is no queue.
    entries = (
        b'[%s, "", "unacked"]' % message(),
        ITEMS[name],
        b'[%s, "", "work"]' % ITEMS[name],
        b'[%s, "nowhere", "work"]' % ITEMS[name],
    )
    for number, entry in enumerate(entries):
        for tag in (b"sb1:somebody:%d" % number, b"a stranger's %d" % number, b"\xff%d" % number):
            client.hset("unacked", tag, entry)
            client.zadd("unacked_index", {tag: 5})
    client.zadd("unacked_owners", {"somebody": 5})
    with ClaimingConsumer(url) as claiming:
        claiming.owner.heartbeat.send_heartbeat(claiming.channel)
        claiming.channel.qos.restore_visible(interval=1)
        publish(url, "good")
        claiming.run(lambda: "good" in claiming.bodies(), timeout=1)


def test_only_the_last_ones_are_kept_and_all_are_counted(url, client):
    """Anybody who can write to the broker must not be able to fill it."""
    client.lpush("work", *[b"x" * 50_000] * 130)
    with ClaimingConsumer(url) as claiming:
        claiming.run(lambda: is_over(client))
    assert len(quarantined(client)) == unacked.MOST_QUARANTINED
    assert int(client.get(unacked.QUARANTINE_COUNT)) == 130
    assert client.memory_usage(unacked.QUARANTINE_LIST) < 2_000_000


def of_other_types(client: Any, key: str) -> None:
    """Replace a key of ours by one of another type."""
    client.delete(key)
    if key in {"work", unacked.QUARANTINE_LIST}:
        client.set(key, "garbage")
    else:
        client.rpush(key, "garbage")


@pytest.mark.parametrize(
    "key",
    ["work", "unacked", "unacked_index", "unacked_owners", unacked.QUARANTINE_LIST, unacked.QUARANTINE_COUNT],
)
@pytest.mark.parametrize("when", ["before", "while a message is held"])
def test_a_key_of_another_type_is_moved_away(key, when, url, client):
    """The key is renamed, and the worker continues."""
    if when == "before":
        of_other_types(client, key)
    with ClaimingConsumer(url) as claiming:
        claiming.run_for(0.05)
        if when != "before":
            publish(url, "held")
            claiming.take(1)
            of_other_types(client, key)
            claiming.messages.pop().ack()
            claiming.run_for(0.05)
        claiming.owner.heartbeat.send_heartbeat(claiming.channel)
        claiming.channel.qos.restore_visible(interval=1)
        claiming.channel._tracking_connection.has_news = True
        claiming.run(lambda: client.type("work") in {b"none", b"list"})
        client.lpush("work", "garbage")
        publish(url, "good")
        claiming.run(lambda: "good" in claiming.bodies(), timeout=1)
        claiming.acknowledge()
        assert quarantined(client)
        assert is_over(client)


def test_requeueing_to_a_key_that_is_no_list(url, client):
    """The queue is made anew."""
    with ClaimingConsumer(url) as claiming:
        claimed = Claimed(b'"held"', "work", "sb1:x:1", "work")
        client.hset("unacked", claimed.tag, "x")
        of_other_types(client, "work")
        claiming.channel._unclaim([claimed])
        assert client.lrange("work", 0, -1) == [claimed.raw]

"""The message and its body."""

from __future__ import annotations

import json
import random
import time
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbus.exceptions import Garbage, PayloadError, UnknownVersion
from signalbus.wire.headers import HEADER_BYTES
from signalbus.wire.message import Message, delivery_id, from_body, to_body, uuid7

texts = st.text(st.characters(codec="utf-8"), max_size=20)
moments = st.datetimes(timezones=st.just(UTC))
messages = st.builds(
    Message,
    id=st.uuids(),
    signal=texts,
    payload=st.text(st.characters(codec="ascii"), max_size=40),
    version=st.sampled_from(["1", "2"]),
    sender=st.none() | texts,
    recipients=st.none() | st.lists(texts, max_size=3).map(tuple),
    ledger=texts,
    durable=st.booleans(),
    recorded=st.booleans(),
    sent_at=moments,
    path=st.lists(texts, max_size=3).map(tuple),
    root=st.uuids(),
    parent=st.none() | st.uuids(),
    ordering_key=st.none() | texts,
    trace=st.dictionaries(texts, texts, max_size=2),
    context=st.dictionaries(texts, texts | st.integers() | st.booleans() | st.lists(texts, max_size=2), max_size=2),
)


def a_message(**changes: object) -> Message:
    key = uuid7()
    message = Message(id=key, signal="shop.sold", payload="[null,{}]", sent_at=datetime.now(UTC), root=key)
    return replace(message, **changes)  # type: ignore[arg-type]


@given(messages)
def test_a_message_comes_back_equal(message):
    """A body restores every message."""
    body = to_body(message)

    assert message == from_body(body)


@given(messages)
def test_a_body_is_ascii(message):
    """Any system that knows ASCII can sign, store and send a body."""
    assert to_body(message).isascii()


def test_defaults_are_left_out():
    """A header has only the values that differ from the defaults."""
    header = json.loads(to_body(a_message()).split("\n")[1])

    assert {"i", "s", "t"} == set(header)


def test_no_recipients_are_not_an_open_message():
    """An empty list of recipients means no receiver; None means those that the worker finds."""
    assert from_body(to_body(a_message(recipients=()))).recipients == ()
    assert from_body(to_body(a_message(recipients=None))).recipients is None


def test_the_sending_time_is_exact_in_any_zone():
    """The sending time keeps its microseconds, and arrives in UTC."""
    moment = datetime(2026, 3, 1, 1, 2, 3, 456789, tzinfo=timezone(timedelta(hours=-3)))

    arrived = from_body(to_body(a_message(sent_at=moment))).sent_at

    assert (moment, UTC) == (arrived, arrived.tzinfo)


def test_a_payload_may_have_line_breaks():
    """They belong to the payload."""
    assert from_body(to_body(a_message(payload="a\nb\n"))).payload == "a\nb\n"


@pytest.mark.parametrize("header", [" %s", "%s\r ", "\t%s\t"])
def test_white_space_around_a_header_is_accepted(header):
    """Another writer of the format may add some."""
    message = a_message()
    version, ours, payload = to_body(message).split("\n")

    assert message == from_body(f"{version}\n{header % ours}\n{payload}")


def test_unknown_header_keys_are_ignored():
    """A header may get new keys without a new version."""
    message = a_message()
    version, header, payload = to_body(message).split("\n")
    grown = json.dumps(json.loads(header) | {"z": [1]})

    assert message == from_body(f"{version}\n{grown}\n{payload}")


def test_a_newer_version_keeps_its_body():
    """A newer version is no garbage: it is parked whole until a newer worker reads it."""
    with pytest.raises(UnknownVersion) as caught:
        from_body("99\nanything")

    assert (caught.value.version, caught.value.body) == ("99", "99\nanything")


def test_a_message_has_the_version_of_its_payload():
    """An older worker reads what it can, and parks the rest; a part or a retry keeps the version."""
    assert to_body(a_message()).startswith("1\n")
    assert to_body(replace(from_body(to_body(a_message(version="2"))), recipients=("a",))).startswith("2\n")


@pytest.mark.parametrize("recorded", [None, True, False])
@pytest.mark.parametrize("recipients", [["shop.count"], ("shop.count", "shop.mail"), [], None])
def test_a_message_for_some_of_its_recipients_is_the_same_message(recipients, recorded):
    """A part of a message differs from the whole in its recipients, and in whether rows exist, if that is given."""
    whole = from_body(to_body(a_message(recipients=("shop.count", "shop.mail"), recorded=True, version="2")))

    part = whole.for_recipients(recipients, recorded=recorded)

    assert part.recipients == (None if recipients is None else tuple(recipients))
    assert part.recorded is (recorded is not False)
    assert replace(part, recipients=whole.recipients, recorded=whole.recorded) == whole
    assert from_body(to_body(part)) == part


def test_a_header_too_large_is_refused_at_send():
    """The worker would refuse it as too large."""
    with pytest.raises(PayloadError, match="connect fewer receivers"):
        to_body(a_message(recipients=("x" * HEADER_BYTES,)))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"i": 1, "s": "x", "t": 0}',
        '{"i": "zz", "s": "x", "t": 0}',
        '{"i": "%s", "s": 1, "t": 0}',
        '{"i": "%s", "s": "x"}',
        '{"i": "%s", "s": "x", "t": "now"}',
        '{"i": "%s", "s": "x", "t": true}',
        '{"i": "%s", "s": "x", "t": 1e400}',
        '{"i": "%s", "s": "x", "t": 999999999999999999999999}',
        '{"i": "%s", "s": "x", "t": 0, "r": "all"}',
        '{"i": "%s", "s": "x", "t": 0, "r": [1]}',
        '{"i": "%s", "s": "x", "t": 0, "p": null}',
        '{"i": "%s", "s": "x", "t": 0, "o": []}',
        '{"i": "%s", "s": "x", "t": 0, "x": {"a": 1}}',
        '{"i": "%s", "s": "x", "t": 0, "d": 0}',
    ],
)
def test_a_broken_header_is_garbage(header):
    """A header that breaks the format in any way is refused."""
    with pytest.raises(Garbage):
        from_body(f"1\n{header.replace('%s', uuid7().hex)}\n[]")


@pytest.mark.parametrize("body", ["", "1", "1\n{}", "x\n{}\n", "-1\n{}\n", "٢\n{}\n", "9" * 5000 + "\n"])
def test_a_broken_body_is_garbage(body):
    """A body without version, header or payload is refused."""
    with pytest.raises(Garbage):
        from_body(body)


def test_a_mutated_body_is_read_or_refused():
    """A mutated body raises one of the two errors that a worker handles."""
    choose = random.Random(1)
    body = to_body(a_message(recipients=("a.b",), path=("x",), trace={"k": "v"}, parent=uuid7()))
    for _ in range(3000):
        at = choose.randrange(len(body))
        mutated = body[:at] + choose.choice('0"[]{},:\n1xnull') + body[at + choose.randrange(3) :]
        try:
            from_body(mutated)
        except (Garbage, UnknownVersion):
            continue


@pytest.mark.parametrize("read", [False, True])
def test_a_message_is_immutable_and_hashable(read):
    """No code can change a message that was sent or read."""
    message = a_message(trace={"a": "b"})
    if read:
        message = from_body(to_body(message))

    assert type(message) is Message
    with pytest.raises(FrozenInstanceError):
        message.signal = "other"  # type: ignore[misc]

    assert hash(message) == hash(replace(message))


def test_depth_is_the_length_of_the_path():
    """A root has depth 0."""
    assert (a_message().depth, a_message(path=("a", "b")).depth) == (0, 2)


def test_uuid7_follows_the_rfc():
    """Version, variant and time are in the places of RFC 9562, and ids are unique."""
    before = time.time_ns() // 1_000_000
    keys = [uuid7() for _ in range(1000)]
    after = time.time_ns() // 1_000_000

    assert len(set(keys)) == 1000
    assert all((key.version, key.variant) == (7, RFC_4122) for key in keys)
    assert all(before <= key.int >> 80 <= after for key in keys)
    assert isinstance(keys[0], UUID)


def test_a_delivery_s_id_begins_as_its_message_s():
    """Keys are in the order of time: random keys make a database slower with its size."""
    first, second = uuid7(), uuid7()
    ids = {delivery_id(message, receiver) for message in (first, second) for receiver in ("a", "b", "\udcff")}

    assert len(ids) == 6
    assert {id_.bytes[:8] for id_ in ids} == {first.bytes[:8], second.bytes[:8]}
    assert {(id_.version, id_.variant) for id_ in ids} == {(7, RFC_4122)}
    assert delivery_id(first, "a") == delivery_id(UUID(first.hex), "a")

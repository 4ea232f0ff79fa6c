"""The headers of messages: the heading that messages of one sender share is read once."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from signalbus.exceptions import Garbage, UnknownVersion
from signalbus.wire import message as wire_message
from signalbus.wire.headers import KnownHeadings, split
from signalbus.wire.message import Message, from_body, to_body, uuid7


@pytest.fixture
def headings(monkeypatch: pytest.MonkeyPatch) -> KnownHeadings:
    """Headings of which none was read yet."""
    known = KnownHeadings()
    monkeypatch.setattr(wire_message, "_headings", known)
    return known


def a_message(**changes: object) -> Message:
    key = uuid7()
    message = Message(id=key, signal="shop.sold", payload="[null,{}]", sent_at=datetime.now(UTC), root=key)
    return replace(message, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "shared",
    [
        {"recorded": True},
        {"sender": "shop.Order", "recipients": ("shop.mail", "shop.count")},
        {"recipients": (), "durable": False, "ledger": "archive", "payload_version": 3},
        {"signal": '"quoted","t":5', "sender": "\\", "recorded": True, "recipients": ('a","t":7',)},
    ],
)
def test_messages_with_one_heading_are_read_alike(headings, shared):
    """A message whose heading is known has its own id, time, version and payload, and all else of the heading."""
    first = a_message(**shared)
    others = [a_message(**shared), a_message(**shared, version="2", payload="[1,{}]")]

    assert from_body(to_body(first)) == first
    assert len(headings) == 1
    assert [from_body(to_body(other)) for other in others] == others
    assert len(headings) == 1


@pytest.mark.parametrize(
    "own",
    [
        {"path": ("shop.paid",), "root": uuid7(), "parent": uuid7()},
        {"ordering_key": "7"},
        {"trace": {"traceparent": "00"}},
        {"context": {"tenant": "a"}},
        {"origin": {"user": "7"}},
    ],
)
def test_only_headings_are_remembered(headings, own):
    """What belongs to one message is not kept, nor shared with another."""
    message = a_message(**own)

    assert from_body(to_body(message)) == message
    assert len(headings) == 0


def test_headings_are_forgotten_when_they_are_many(headings):
    """The memory does not grow with the headings of all senders, nor with one that is long."""
    for number in range(KnownHeadings.MOST + 1):
        from_body(to_body(a_message(signal=f"shop.s{number}", recorded=True)))
        assert len(headings) <= KnownHeadings.MOST
    before = len(headings)

    from_body(to_body(a_message(signal="s" * KnownHeadings.MOST_CHARS, recorded=True)))

    assert len(headings) == before


def test_a_mutated_header_is_read_the_same_with_a_known_heading(headings):
    """A header that was changed in any place is not taken for one that is known."""
    choose = random.Random(2)
    body = to_body(a_message(recipients=("a.b",), sender="shop.Order"))
    for _ in range(2000):
        at = choose.randrange(len(body))
        # No zero: JSON would refuse one before the time, which no signer writes.
        mutated = body[:at] + choose.choice('"[]{},:\n1xnull') + body[at + choose.randrange(3) :]
        from_body(body)
        assert len(headings) >= 1
        known = read(mutated)
        headings.clear()
        assert read(mutated) == known


def read(body: str) -> object:
    try:
        return from_body(body)
    except (Garbage, UnknownVersion) as error:
        return type(error)


def test_a_header_that_is_written_otherwise_has_no_heading(headings):
    """Another order of its keys, and white space, are read as always, and not remembered."""
    message = a_message(recorded=True)
    version, header, payload = to_body(message).split("\n")
    id_, moment, _ = split(header)

    for other in (
        f'{{"s":"shop.sold","i":"{id_}","t":{moment},"c":true}}',
        f'{{"i": "{id_}","s":"shop.sold","t":{moment},"c":true}}',
        f'{{"i":"{id_}","s":"shop.sold","c":true,"t":{moment}}}',
    ):
        assert from_body(f"{version}\n{other}\n{payload}") == message
    assert len(headings) == 0

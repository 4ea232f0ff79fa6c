"""What is read of a queue's items, and what becomes one message."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbus import celery
from signalbus.receiving.worker.request import DeliverRequest
from signalbus.transport.claimed_message import Message
from signalbus.transport.coalescing import MOST_TEXTS, Merged
from signalbus.wire.peek import has_several_recipients, signal_of
from tests.unit.transport.parcels import QUEUE, claim, item, read, text_of


class Channel:
    """What kombu's message asks of a channel."""

    no_ack_consumers = None

    def decode_body(self, body: str, encoding: str | None = None) -> Any:
        """Give the body as it is."""
        assert encoding is None
        return body


def deliver(*parcels):
    """Make the kombu message of a group."""
    return Message(Merged(parcels), channel=Channel(), accept={"application/json"})


class TestReading:
    def test_what_the_publisher_writes_is_read(self):
        """The form in which all texts of this release travel."""
        texts = text_of(), text_of()
        assert read(claim(item(*texts))).texts == texts

    def test_a_signal_is_seen_in_a_text(self):
        """Wherever the rest of the header leaves it."""
        assert signal_of(text_of("shop.paid", sender="shop.order", recorded=True)) == "shop.paid"

    @pytest.mark.parametrize(
        "text", ["", "x" * 80, '"s":"a"', "x" * 80 + '"s":"', "x" * 80 + '"s":"' + "a" * 400 + '"']
    )
    def test_no_signal_is_seen_where_none_stands(self, text):
        """A forger's text, or a marker."""
        assert signal_of(text) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"headers": {"task": "another.task", "id": "x"}},
            {"headers": {"task": celery.TASK_NAME}},
            {"headers": {"task": celery.TASK_NAME, "id": 7}},
            {"headers": {"task": celery.TASK_NAME, "id": "x", "redelivered": True}},
            {"headers": {"task": celery.TASK_NAME, "id": "x", "traceparent": "00-1-2-01"}},
            {"headers": {"task": celery.TASK_NAME, "id": "x", "origin": ["x"]}},
            {"headers": {"task": celery.TASK_NAME, "id": "x", "compression": "application/x-gzip"}},
            {"headers": ["task"]},
            {"headers": None},
            {"properties": {"body_encoding": "base64"}},
            {"properties": None},
            {"content-type": "application/x-python-serialize"},
            {"content-encoding": "utf-16"},
            {"body": "no base64"},
            {"body": None},
            {"body": b64encode(b"[[[" * 5000).decode()},
            {"body": b64encode(b"[[[7]], {}, {}]").decode()},
            {"body": b64encode(b'[[["a"]], {"b": 1}, {}]').decode()},
            {"body": b64encode(b'[[["a"]], {}, {"chain": [1]}]').decode()},
            {"body": b64encode(b'[[["a"], ["b"]], {}, {}]').decode()},
            {"body": b64encode(b"[[[]], {}, {}]").decode()},
            {"body": b64encode(b'[["a"], {}, {}]').decode()},
            {"body": b64encode(json.dumps([[["a"] * (MOST_TEXTS + 1)], {}, {}]).encode()).decode()},
            {"more": 1},
        ],
    )
    def test_whatever_is_unusual_is_left_as_it_is(self, changes):
        """It travels alone, and the worker makes of it what it would have made of it."""
        assert read(claim(item("a", **changes))).texts == ()

    @pytest.mark.parametrize("change", [{"exchange": "x"}, {"routing_key": "other"}, {"redelivered": True}])
    def test_what_came_another_way_is_left_as_it_is(self, change):
        """Above all what was given out before, and may have ended a worker."""
        made = item("a")
        made["properties"]["delivery_info"] |= change
        assert read(claim(made)).texts == ()

    @pytest.mark.parametrize(
        "raw", [b"", b"null", b"[]", b"7", b'"x"', b"{", b"\xff\xfe", b"[" * 5000, b"{}", b"9" * 5000]
    )
    def test_what_is_no_message_is_left_as_it_is(self, raw):
        """The transport deals with it."""
        assert read(claim(raw)).texts == ()

    @given(st.binary(max_size=300))
    def test_no_bytes_are_too_much(self, raw):
        """Whoever can write to the broker chose them."""
        assert read(claim(raw)).texts == ()


class TestMerging:
    @given(st.lists(st.lists(st.text(), min_size=1, max_size=3), min_size=1, max_size=8))
    def test_a_group_holds_the_texts_of_its_members_in_order(self, members):
        """Whatever they wrote, it stays in its place: none becomes two, or anything but a text."""
        parcels = [read(claim(item(*texts))) for texts in members]

        arguments, named, embedded = deliver(*parcels).payload

        assert arguments == [[text for texts in members for text in texts]]
        assert (named, embedded) == ({}, {})

    @given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60))
    def test_hostile_bytes_in_one_body_do_not_touch_its_neighbours(self, inserted, start, end):
        """Read by itself, it is texts or nothing."""
        body = json.dumps([[["a text of somebody's"]], {}, {}]).encode()
        hostile = read(claim(item(body=b64encode(body[:start] + inserted + body[end:]).decode())))
        before, after = read(claim(item("before"))), read(claim(item("after")))

        arguments, named, embedded = deliver(before, hostile, after).payload

        assert arguments == [["before", *hostile.texts, "after"]]
        assert all(type(text) is str for text in hostile.texts)
        assert (named, embedded) == ({}, {})

    def test_a_group_has_an_id_and_a_tag_of_its_own(self):
        """Its members are acknowledged by theirs."""
        first, second = read(claim(item("a"), tag="1")), read(claim(item("b"), tag="2"))
        message = deliver(first, second)
        assert message.delivery_tag == "sb1g:1"
        assert message.headers["id"] == message.headers["root_id"] == message.properties["correlation_id"]
        assert message.headers["id"] not in [first.headers["id"], second.headers["id"]]
        assert message.headers["argsrepr"] == "(2 texts)"

    def test_who_travels_alone_keeps_id_and_tag(self):
        """As on any transport."""
        made = item("a")
        message = deliver(read(claim(made, tag="1")))
        assert (message.headers, message.delivery_tag) == (made["headers"], "1")
        assert message.properties["correlation_id"] == made["headers"]["id"]

    def test_a_group_is_a_request_as_others_are(self):
        """A worker's main process finds all that it asks for."""
        message = deliver(read(claim(item("a"))), read(claim(item("b"))))
        app = celery.get_app()
        made = DeliverRequest(message, app=app, task=app.tasks[celery.TASK_NAME], hostname="here")
        assert made.body == ([["a", "b"]], {}, {})
        assert made.delivery_info["routing_key"] == QUEUE

    def test_who_merely_looks_like_a_group_is_none(self):
        """A forged item has no way to bring its own arguments along."""
        forged = item("a") | {"parcels": [["x"]]}
        forged["properties"]["body_encoding"] = None
        forged["body"] = json.dumps([[["a"]], {}, {}])
        message = Message(forged, channel=Channel(), accept={"application/json"})
        assert message.payload == [[["a"]], {}, {}]


@pytest.mark.parametrize(
    ("recipients", "several"),
    [((), False), (("one",), False), (("one", "two"), True), (("o]ne", "two"), False), (None, False)],
)
def test_several_recipients_are_seen_in_a_text(recipients, several):
    """A glance alone; what misleads it costs nothing but company."""
    assert has_several_recipients(text_of(recipients=recipients, sender="shop.Order")) is several

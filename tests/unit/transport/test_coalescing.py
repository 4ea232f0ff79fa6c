"""Coalescing: which queue items are read, and how several become one message."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbus import celery
from signalbus.receiving.worker.request import DeliverRequest
from signalbus.transport.claimed_message import ClaimedMessage
from signalbus.transport.coalescing import MOST_TEXTS, Merged
from signalbus.wire.unverified_text import has_several_recipients, signal_of
from tests.unit.transport.queue_items import QUEUE, claim, item, read, text_of


class Channel:
    """The methods of a channel that kombu's message calls."""

    no_ack_consumers = None

    def decode_body(self, body: str, encoding: str | None = None) -> Any:
        """Return the body unchanged."""
        assert encoding is None
        return body


def deliver(*batch):
    """Make the kombu message of a batch."""
    return ClaimedMessage(Merged(batch), channel=Channel(), accept={"application/json"})


class TestReading:
    def test_the_publishers_items_are_read(self):
        """All texts of this release have this form."""
        texts = text_of(), text_of()
        assert read(claim(item(*texts))).texts == texts

    def test_the_signal_of_a_text_is_found(self):
        """It may be anywhere in the header."""
        assert signal_of(text_of("shop.paid", sender="shop.order", recorded=True)) == "shop.paid"

    @pytest.mark.parametrize(
        "text", ["", "x" * 80, '"s":"a"', "x" * 80 + '"s":"', "x" * 80 + '"s":"' + "a" * 400 + '"']
    )
    def test_a_text_without_a_signal(self, text):
        """It is a forger's text, or a marker."""
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
    def test_an_unusual_item_is_not_read(self, changes):
        """It goes on alone and unchanged."""
        assert read(claim(item("a", **changes))).texts == ()

    @pytest.mark.parametrize("change", [{"exchange": "x"}, {"routing_key": "other"}, {"redelivered": True}])
    def test_a_redelivered_item_is_not_read(self, change):
        """It may have ended a worker."""
        made = item("a")
        made["properties"]["delivery_info"] |= change
        assert read(claim(made)).texts == ()

    @pytest.mark.parametrize(
        "raw", [b"", b"null", b"[]", b"7", b'"x"', b"{", b"\xff\xfe", b"[" * 5000, b"{}", b"9" * 5000]
    )
    def test_an_item_that_is_no_message_is_not_read(self, raw):
        """The transport handles it."""
        assert read(claim(raw)).texts == ()

    @given(st.binary(max_size=300))
    def test_any_bytes_are_accepted(self, raw):
        """Anybody who can write to the broker chose them."""
        assert read(claim(raw)).texts == ()


class TestMerging:
    @given(st.lists(st.lists(st.text(), min_size=1, max_size=3), min_size=1, max_size=8))
    def test_a_batch_has_its_members_texts_in_order(self, members):
        """Any bytes of a text stay one text in their place."""
        batch = [read(claim(item(*texts))) for texts in members]

        arguments, named, embedded = deliver(*batch).payload

        assert arguments == [[text for texts in members for text in texts]]
        assert (named, embedded) == ({}, {})

    @given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60))
    def test_invalid_bytes_in_one_body_do_not_change_the_others(self, inserted, start, end):
        """Each body is read separately: it has texts, or none."""
        body = json.dumps([[["a text of somebody's"]], {}, {}]).encode()
        hostile = read(claim(item(body=b64encode(body[:start] + inserted + body[end:]).decode())))
        before, after = read(claim(item("before"))), read(claim(item("after")))

        arguments, named, embedded = deliver(before, hostile, after).payload

        assert arguments == [["before", *hostile.texts, "after"]]
        assert all(type(text) is str for text in hostile.texts)
        assert (named, embedded) == ({}, {})

    def test_a_batch_has_its_own_id_and_tag(self):
        """Its members are acknowledged by theirs."""
        first, second = read(claim(item("a"), tag="1")), read(claim(item("b"), tag="2"))
        message = deliver(first, second)
        assert message.delivery_tag == "sb1g:1"
        assert message.headers["id"] == message.headers["root_id"] == message.properties["correlation_id"]
        assert message.headers["id"] not in [first.headers["id"], second.headers["id"]]
        assert message.headers["argsrepr"] == "(2 texts)"

    def test_a_single_message_keeps_its_id_and_tag(self):
        """This is as on any transport."""
        made = item("a")
        message = deliver(read(claim(made, tag="1")))
        assert (message.headers, message.delivery_tag) == (made["headers"], "1")
        assert message.properties["correlation_id"] == made["headers"]["id"]

    def test_a_batch_is_an_ordinary_request(self):
        """A worker's main process finds all that it reads."""
        message = deliver(read(claim(item("a"))), read(claim(item("b"))))
        app = celery.get_app()
        made = DeliverRequest(message, app=app, task=app.tasks[celery.TASK_NAME], hostname="here")
        assert made.body == ([["a", "b"]], {}, {})
        assert made.delivery_info["routing_key"] == QUEUE

    def test_a_forged_batch_is_not_a_batch(self):
        """A forged item cannot bring its own arguments."""
        forged = item("a") | {"members": [["x"]]}
        forged["properties"]["body_encoding"] = None
        forged["body"] = json.dumps([[["a"]], {}, {}])
        message = ClaimedMessage(forged, channel=Channel(), accept={"application/json"})
        assert message.payload == [[["a"]], {}, {}]


@pytest.mark.parametrize(
    ("recipients", "several"),
    [((), False), (("one",), False), (("one", "two"), True), (("o]ne", "two"), False), (None, True)],
)
def test_the_recipients_of_a_text_are_counted(recipients, several):
    """The count only decides how messages are batched, so a false one does little harm."""
    assert has_several_recipients(text_of(recipients=recipients, sender="shop.Order")) is several

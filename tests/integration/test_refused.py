"""Promise 6: a sender without the key makes no receiver run; garbage is recorded, and ends no worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.test import override_settings

from signalbus import Signal, conf
from signalbus.celery import queue_of
from signalbus.ledger.attempts import parked_rows
from signalbus.ledger.base import deliveries
from signalbus.models import Delivery, StoredMessage
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.due_publication import sweep
from signalbus.wire.signing import Signer

from .bus import QUEUE, Bus, connect, new_signal, only, rows, text_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def signal(ran: list[Any]) -> Signal:
    """A signal with one receiver."""
    signal = new_signal()
    connect(signal, lambda **kwargs: ran.append(kwargs), "target")
    return signal


@pytest.fixture
def good(bus: Bus, signal: Signal) -> str:
    """A valid text."""
    signal.send(None, number=1)
    ((text,),) = bus.take()
    return text


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def flipped(text: str, at: int) -> str:
    """Return the text with one bit of one character changed."""
    return text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]


# Texts of an attacker who can write to the broker.
FORGED: dict[str, Callable[[str], object]] = {
    "not a text": lambda good: 7,
    "none": lambda good: None,
    "bytes": lambda good: good.encode(),
    "a dict": lambda good: {"text": good},
    "empty": lambda good: "",
    "no dots": lambda good: good.replace(".", ""),
    "only dots": lambda good: "." * 100,
    "no signature": lambda good: good.split(".", 2)[2],
    "wrong mac": lambda good: f"{good[:9]}{'0' * 64}{good[73:]}",
    "mac in capitals": lambda good: f"{good[:9]}{good[9:73].upper()}{good[73:]}",
    "truncated": lambda good: good[: len(good) // 2],
    "longer": lambda good: good + " ",
    "one bit of the mac": lambda good: flipped(good, 20),
    "one bit of the body": lambda good: flipped(good, len(good) - 10),
    "another body under an old mac": lambda good: good.replace('"number"', '"Number"'),
    "huge": lambda good: good + "x" * 10_000_000,
    "NULs": lambda good: good + "\x00",
    "NULs alone": lambda good: "\x00" * 100,
    "NULs under an unknown key": lambda good: f"AAAAAAAA.{'0' * 64}.\x00",
    "lone surrogates": lambda good: good + "\ud800",
    "letters of another script": lambda good: good.replace("number", "nümber"),
    "a list as a text": lambda good: [good],
    "deep lists": lambda good: nested(50_000),
    "a huge list": lambda good: ["x"] * 1_000_000,
    "line breaks": lambda good: "\n2026-01-01 00:00:00 ERROR somebody else\r\n\x1b[31m",
    "another's key": lambda good: good[:9] + Signer(["another"], 10_000).sign(good[74:])[9:],
}
# Key holders, of whom one may be mistaken, or of a version to come.
SIGNED: dict[str, Callable[[str], object]] = {
    "no version": lambda good: text_of("garbage"),
    "empty body": lambda good: text_of(""),
    "no header": lambda good: text_of("1\n"),
    "not JSON": lambda good: text_of("1\n{]\n[]"),
    "a list as header": lambda good: text_of("1\n[]\n[]"),
    "a header too deep": lambda good: text_of(f"1\n{'[' * 20_000}\n[]"),
    "a number as signal": lambda good: text_of(f'1\n{{"i":"{uuid4().hex}","s":7,"t":1}}\n[]'),
    "no id": lambda good: text_of('1\n{"s":"x","t":1}\n[]'),
    "a time out of the calendar": lambda good: text_of(f'1\n{{"i":"{uuid4().hex}","s":"x","t":{10**30}}}\n[]'),
    "recipients that are none": lambda good: text_of(f'1\n{{"i":"{uuid4().hex}","s":"x","t":1,"r":[7]}}\n[]'),
}


@pytest.mark.parametrize("kind", [*FORGED, *SIGNED])
def test_promise_6_garbage_runs_nothing_and_is_recorded(kind: str, bus: Bus, good: str, ran: list[Any], caplog):
    """Bad input, a text that is garbage, unsigned or wrongly signed: never run, kept as a dead letter, its text cut;
    the good text beside it is delivered.
    """
    text = {**FORGED, **SIGNED}[kind](good)

    deliver([text, good], queue=QUEUE)

    assert len(ran) == 1
    assert rows() == [("", "dead", 1)]
    assert only().message.sealed
    assert only().error
    assert len(only().message.text) <= 2100
    assert all("\n" not in record.getMessage() and len(record.getMessage()) < 2000 for record in caplog.records)
    assert sweep() == 0


def with_header(good: str, **items: object) -> str:
    """Return the same message with another header, signed by a key holder."""
    version, header, payload = good[74:].split("\n", 2)
    changed = {**json.loads(header), "i": uuid4().hex, **items}
    return text_of(f"{version}\n{json.dumps(changed)}\n{payload}")


@pytest.mark.parametrize(
    "payload",
    ["", "{]", "7", "[]", "[null]", "{}", "[" * 10_000, '[null,{"$ref":7}]', '[null,{"a":{"$nonsense":1}}]', "[1,2,3]"],
)
def test_a_signed_payload_that_cannot_be_read_is_a_dead_letter(bus: Bus, signal: Signal, good: str, ran, payload):
    """A key holder sent it; it is recorded as that receiver's, and not retried."""
    version, header, _ = good[74:].split("\n", 2)

    deliver([text_of(f"{version}\n{header}\n{payload}"), good], queue=QUEUE)

    assert len(ran) == 1
    assert rows() == [("target", "dead", 1)]


def test_bad_input_too_deep_is_a_dead_letter(bus: Bus, signal: Signal, ran):
    """Bad input, nested deeper than the worker's limit, is recorded as failed, and never run."""
    signal.send(None, number=nested(30))
    with override_settings(SIGNALBUS={"MAX_NESTING": 8}):
        bus.work()

    assert ran == []
    assert rows() == [("target", "dead", 1)]
    assert only().error.startswith("TooLarge")


def test_bad_input_too_large_is_a_dead_letter(bus: Bus, signal: Signal, ran):
    """Bad input, larger than the worker's limit, is never run, and recorded truncated."""
    signal.send(None, number="x" * 200_000)
    with override_settings(SIGNALBUS={"MAX_BYTES": 1024}):
        bus.work()

    assert ran == []
    assert rows() == [("", "dead", 1)]
    assert only().error.startswith("TooLarge")


@pytest.mark.parametrize("texts", [None, 7, "a text", {"a": 1}, nested(50_000), b"bytes", ()])
def test_an_argument_that_is_no_list_is_refused(bus: Bus, texts: object):
    """The argument of the task may be anything."""
    deliver(texts, queue=QUEUE)

    assert rows() == [("", "dead", 1)]


@pytest.mark.parametrize("queue", ["\x00", "x" * 10_000, "", "\ud800", 7, ["list"], {"a": 1}, None])
def test_a_queues_name_may_be_anything(bus: Bus, signal: Signal, good: str, ran, queue: Any):
    """The routing key comes from the message too; an invalid name counts as the default queue."""
    connect(signal, lambda **kwargs: 1 / 0, "failing")
    parted = with_header(good, r=["target", "failing", "unknown"])

    deliver(["garbage", parted], queue=queue_of(queue))

    assert len(ran) == 1
    assert rows() == [("", "dead", 1), ("failing", "pending", 1), ("unknown", "parked", 0)]
    assert set(Delivery.objects.values_list("queue", flat=True)) == {""}


@pytest.mark.parametrize("name", ["\x00", "x" * 5000, "\ud800", "a\nb"])
def test_signed_names_may_be_anything(bus: Bus, signal: Signal, good: str, ran, name: str):
    """A signal's or receiver's name that no database can store does not come back for ever."""
    deliver([with_header(good, s=name), with_header(good, r=[name]), with_header(good, f=name), good], queue=QUEUE)

    assert len(ran) >= 1
    assert set(Delivery.objects.values_list("state", flat=True)) <= {"dead", "parked"}


def test_the_first_refused_texts_are_recorded_and_the_rest_counted(bus: Bus):
    """KEEP_REFUSED of them have rows; one more row counts the rest; a text that comes again counts by itself."""
    with override_settings(SIGNALBUS={"KEEP_REFUSED": 3}):
        deliver([f"garbage {number}" for number in range(10)] + ["garbage 0"], queue=QUEUE)

    assert Delivery.objects.count() == StoredMessage.objects.count() == 4
    assert sorted(Delivery.objects.values_list("attempts", flat=True)) == [1, 1, 2, 7]
    assert Delivery.objects.get(attempts=7).error == "more refused texts; attempts counts them"


@pytest.mark.parametrize("most", [2000, 0], ids=["with a row of its own", "only counted"])
def test_a_text_that_two_processes_refuse_at_once_is_counted_twice(bus: Bus, monkeypatch, most: int):
    """Another process inserts the row of the same text between the look for it and the insertion."""

    def insert_after_another_process(*rows: Any) -> None:
        monkeypatch.undo()
        with override_settings(SIGNALBUS={"KEEP_REFUSED": most}):
            parked_rows.refuse("garbage", "no text", QUEUE)
        deliveries.insert(*rows)

    monkeypatch.setattr(parked_rows, "insert", insert_after_another_process)
    with override_settings(SIGNALBUS={"KEEP_REFUSED": most}):
        parked_rows.refuse("garbage", "no text", QUEUE)

    assert Delivery.objects.get().attempts == 2


def test_a_sealed_text_is_never_signed(bus: Bus, signal: Signal, good: str, ran):
    """Neither the sweeper nor a retry by hand signs a text that was not verified."""
    foreign = Signer(["another"], 100_000).sign(good[74:])
    deliver([foreign, "garbage"], queue=QUEUE)
    Delivery.objects.update(state="pending", ended_at=None)

    bus.come_again()

    assert ran == []
    assert bus.take() == []
    assert set(Delivery.objects.values_list("state", flat=True)) == {"parked", "dead"}
    assert StoredMessage.objects.filter(sealed=True).count() == 2


def test_rotated_keys_lose_nothing(bus: Bus, signal: Signal, ran):
    """A text of the former key runs; one of the next key is parked until that key is known, and then runs."""
    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["old"]}):
        signal.send(None, number="old")
    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["new"]}):
        signal.send(None, number="new")
    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["now", "old"]}):
        bus.work()
        assert [kwargs["number"] for kwargs in ran] == ["old"]
        assert [(state, attempts) for _, state, attempts in rows()] == [("parked", 0)]
        bus.come_again()
        assert [kwargs["number"] for kwargs in ran] == ["old"]
    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["new", "now", "old"]}):
        bus.come_again()
        bus.come_again()

    assert [kwargs["number"] for kwargs in ran] == ["old", "new"]
    assert rows() == [("target", "done", 1)]
    assert conf.get().SIGNING_KEYS is None

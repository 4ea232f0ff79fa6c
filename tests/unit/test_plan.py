"""Plans: what is written once for many messages is what would have been written for each."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.http import QueryDict
from django.test import override_settings
from django.utils.functional import SimpleLazyObject
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbus import Signal
from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.sending.plan import Plan
from signalbus.testing import captured
from signalbus.wire import codec
from signalbus.wire.message import delivery_hex, delivery_id, from_body, stamp, to_body, uuid7
from signalbus.wire.values.references import allow_sender
from tasks.admissions.models import Academy, Cohort

from .wire_app import models
from .wire_values import any_text, hashable_leaves, mixed_payloads, saved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db import models as django_models

NUMBERS = iter(range(10**6))
SENDERS = st.sampled_from([None, "a text", "$", "né", Cohort, models.Tagged, models.Point, len, saved(Cohort, pk=1)])


def anybody(sender: Any, **payload: Any) -> None:
    """Receive."""


def somebody_else(sender: Any, **payload: Any) -> None:
    """Receive as well."""


@pytest.fixture
def signal() -> Signal:
    """A signal with a receiver."""
    signal = Signal(f"tests.plan_{next(NUMBERS)}", durable=False)
    signal.connect(anybody)
    return signal


def plan_of(signal: Signal, sender: Any = None) -> Plan | None:
    return signal._plans.of(signal, sender)


def written(sender: object, payload: Mapping[str, object], **options: Any) -> str | None:
    """Write a payload in the short way, if that takes it."""
    text = codec.write_sender(sender)
    return None if text is None else codec.write_with(text, payload, **options)


# What is written


@settings(max_examples=3 * settings().max_examples)
@given(SENDERS, mixed_payloads | st.dictionaries(any_text, hashable_leaves, max_size=4))
def test_the_short_way_writes_what_the_long_one_does(sender, payload):
    """Character for character, where it writes at all; where the long one refuses, the short one leaves it to that."""
    short = written(sender, payload)

    try:
        text, version = codec.encode(sender, payload)
    except PayloadError:
        assert short is None
        return
    assert short in (None, text)
    if short is not None:
        assert version == "1"


FLAT = {"created": True, "number": 1, "ratio": 0.5, "name": "né", "nothing": None, "raw": b"x", "instance": None}


def test_the_usual_payload_takes_the_short_way():
    """Plain values, and saved rows with a number for a key."""
    payload = FLAT | {"instance": saved(Cohort, pk=7)}
    codec.encode(Cohort, payload)  # the first of a model is asked for its key

    assert written(Cohort, payload) == codec.encode(Cohort, payload)[0]


UNUSUAL = [
    {"$ref": 1},
    {"items": [1]},
    {"né": 1},
    {"row": Cohort()},
    {"row": saved(models.Tagged, pk=UUID(int=7))},
    {"number": float("nan")},
    {1: 2},
]


@pytest.mark.parametrize("payload", UNUSUAL, ids=["tag", "list", "key", "unsaved", "uuid", "nan", "number for a key"])
def test_what_is_not_flat_and_plain_takes_the_long_way(payload):
    """Tags, containers, snapshots, keys to be asked for; and what is refused, which is told there with its place."""
    assert written(None, payload) is None


def test_a_querydict_is_what_a_dict_made_of_it_is():
    """As `**` takes it: its items() would give the last of each key's values only."""
    payload = QueryDict("a=1&a=2")
    taken: dict[str, Any] = {**payload}
    assert taken == {"a": ["1", "2"]}

    assert written(None, payload) is None
    assert codec.encode(None, payload) == codec.encode(None, {"a": ["1", "2"]})


def test_a_payload_that_is_too_large_is_told_of_by_the_long_way():
    """With the words of that."""
    assert written(None, {"text": "x" * 100}, max_bytes=100) is None
    assert written(None, {"text": "x" * 100}, max_bytes=200) is not None


def test_a_row_whose_own_code_raises_takes_the_long_way(monkeypatch: pytest.MonkeyPatch):
    """Which says where it stands."""
    row = saved(Cohort, pk=1)
    codec.encode(None, {"row": row})
    monkeypatch.setattr(Cohort, "pk", property(lambda self: 1 / 0))

    assert written(None, {"row": row}) is None


def test_what_the_plan_writes_is_a_message_as_any(signal: Signal):
    """Its body is the one that the message in it would be written as."""
    with captured() as sent:
        signal.send(Cohort, **FLAT)
        signal.send(Cohort, **FLAT)

    plan = plan_of(signal, Cohort)
    assert plan is not None
    ((part,),) = plan.messages(Cohort, [FLAT])
    assert to_body(from_body(part.body)) == part.body
    message = from_body(part.body)
    assert (message.id, message.id.hex) == (part.id, part.key)
    first = from_body(sent._outgoing[0][1].body)
    same = replace(message, id=first.id, root=first.root, sent_at=first.sent_at)
    assert same == first
    assert abs((message.sent_at - first.sent_at).total_seconds()) < 5


def test_send_and_send_robust_write_the_same(signal: Signal):
    """One of them remembers how."""
    with captured() as sent:
        signal.send(Cohort, **FLAT)
        signal.send_robust(Cohort, **FLAT)
        signal.send_many(Cohort, [FLAT])

    bodies = [from_body(item.body) for _, item in sent._outgoing]
    alike = [replace(body, id=bodies[0].id, root=bodies[0].root, sent_at=bodies[0].sent_at) for body in bodies]
    assert alike == [bodies[0]] * 3


def test_a_key_that_receivers_get_anyway_is_refused(signal: Signal):
    """By the plan too."""
    for _ in range(2):
        with pytest.raises(PayloadError, match="signal: receivers get one"):
            signal.send(None, signal="mine")
        with pytest.raises(PayloadError, match="sender: receivers get one"):
            signal.send_many(None, [{"sender": "mine"}])


# Ids


def test_a_stamp_is_an_id_and_its_time():
    """Both of one moment."""
    key, micros = stamp()

    assert int(key[:12], 16) == micros // 1000
    assert uuid7().version == 7
    assert key[12] == "7"
    assert key[16] in "89ab"


@given(st.uuids(), st.text())
def test_a_delivery_has_one_id_in_both_writings(message, receiver):
    """In hex, and as a UUID."""
    assert delivery_id(message, receiver).hex == delivery_hex(message.hex, receiver)


# What is remembered


def test_a_plan_is_made_once_for_a_sender(signal: Signal):
    """And is another for another sender."""
    assert plan_of(signal) is plan_of(signal) is not None
    assert plan_of(signal, Cohort) is plan_of(signal, Cohort) is not plan_of(signal)


def test_what_is_sent_in_other_ways_is_written_by_the_same_plan(signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """Robustly, and by a bridge: what differs is what happens around it."""
    assert plan_of(signal, Cohort) is not None
    made = []
    monkeypatch.setattr(Plan, "__init__", lambda self, *args: made.append(args))
    with captured() as sent:
        signal.send_robust(Cohort, number=1)

    assert len(sent) == 1
    assert made == []


@pytest.mark.parametrize("sender", ["a text", saved(Academy, pk=1)], ids=["text", "row"])
def test_what_is_not_remembered_is_sent_all_the_same(signal: Signal, sender: object):
    """By texts and rows: their number has no end."""
    assert plan_of(signal, sender) is None
    with captured() as sent:
        signal.send(sender, number=1)
    assert len(sent) == 1


def recipients(signal: Signal, sender: Any = None) -> tuple[str, ...] | None:
    """Whom a message of this sender is for now."""
    with captured() as sent:
        signal.send(sender, number=1)
    return sent[0].recipients if sent else None


ANYBODY, SOMEBODY_ELSE = f"{__name__}.anybody", f"{__name__}.somebody_else"


def test_who_is_connected_or_disconnected_is_heard_of_at_once(signal: Signal):
    """The next message knows."""
    assert recipients(signal) == (ANYBODY,)
    signal.connect(somebody_else)
    assert recipients(signal) == (ANYBODY, SOMEBODY_ELSE)
    signal.disconnect(anybody)
    assert recipients(signal) == (SOMEBODY_ELSE,)
    signal.connect(anybody, sender=Cohort)
    assert recipients(signal) == (SOMEBODY_ELSE,)
    assert recipients(signal, Cohort) == (SOMEBODY_ELSE, f"{ANYBODY}[admissions.Cohort]")


class _AllEqual(type):
    """A metaclass of classes that are equal, and of which no dict takes one."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        return True


@pytest.mark.parametrize("lazy", [False, True])
def test_each_class_has_a_plan_of_its_own_whatever_it_says_of_itself(signal: Signal, lazy: bool):
    """Who hears it is told by what it is, as for Django, and not by what it is equal to, or says that it is."""
    one = _AllEqual("One", (), {"__module__": models.__name__})
    other: Any = SimpleLazyObject(lambda: one) if lazy else _AllEqual("Other", (), {"__module__": models.__name__})
    signal.connect(somebody_else, sender=one)
    allow_sender(other)

    assert recipients(signal, other) == (ANYBODY,)
    assert recipients(signal, one) == (ANYBODY, f"{SOMEBODY_ELSE}[{models.__name__}:One]")
    assert recipients(signal, other) == (ANYBODY,)


def test_who_died_gets_nothing_more(signal: Signal):
    """Weakly held receivers end with what holds them."""

    class Held:
        def receive(self, sender: Any, **payload: Any) -> None:
            """Receive."""

    held = Held()
    signal.connect(held.receive, dispatch_uid="held")
    assert recipients(signal) == (ANYBODY, "held")
    del held
    gc.collect()
    assert recipients(signal) == (ANYBODY,)


def test_a_rival_that_came_later_is_told_of(signal: Signal):
    """Django ignores who has another's uid: the sender would not hear of it."""
    signal.connect(somebody_else, dispatch_uid="one uid")
    assert recipients(signal) == (ANYBODY, "one uid")
    signal.connect(anybody, dispatch_uid="one uid")

    with pytest.raises(ConfigurationError, match="one uid"):
        signal.send(None)

    signal.disconnect(dispatch_uid="one uid")
    assert recipients(signal) == (ANYBODY,)


def test_one_that_runs_here_ends_the_plan(signal: Signal):
    """Its responses are what a send returns."""
    assert plan_of(signal) is not None
    signal.connect(somebody_else, inline=True)

    assert plan_of(signal) is None
    with captured():
        assert signal.send(None, number=1) == [(somebody_else, None)]


def test_a_test_s_tool_may_put_another_list_in_the_place_of_django_s(signal: Signal):
    """As factory_boy's mute_signals does, which puts the old one back."""
    assert recipients(signal) == (ANYBODY,)
    before, signal.receivers = signal.receivers, []
    assert recipients(signal) is None
    signal.receivers = before
    assert recipients(signal) == (ANYBODY,)


def test_the_ledger_is_asked_for_each_time(signal: Signal):
    """A router may answer by what is active."""

    class Router:
        def db_for_write(self, model: type[django_models.Model], **hints: Any) -> str | None:
            return "other" if model._meta.app_label == "signalbus" else None

    assert plan_of(signal) is not None
    with override_settings(DATABASE_ROUTERS=[Router()]):
        plan = plan_of(signal)
        assert plan is not None
        assert plan.envelope.ledger == "other"
    plan = plan_of(signal)
    assert plan is not None
    assert plan.envelope.ledger == "default"


def test_what_a_signal_says_of_itself_may_change(signal: Signal):
    """As where a test makes one less durable: the next message knows."""
    before = plan_of(signal)
    assert before is not None
    signal.durable = not before.envelope.durable
    after = plan_of(signal)
    assert after is not None
    assert after.envelope.durable is not before.envelope.durable
    signal.open = True
    assert plan_of(signal) is None


def test_limits_are_read_for_each_message(signal: Signal):
    """A plan outlives a change of settings."""
    signal.send_robust(None)
    with captured():
        signal.send(None, text="x" * 300)
        with override_settings(SIGNALBUS={"MAX_BYTES": 200}), pytest.raises(PayloadError, match="200 are allowed"):
            signal.send(None, text="x" * 300)


def test_a_class_that_ends_takes_its_plan_along(signal: Signal):
    """A sender is not kept alive."""
    brief = type("Brief", (), {"__module__": models.__name__})
    assert plan_of(signal, brief) is not None
    ended = weakref.ref(brief)
    del brief
    gc.collect()

    assert ended() is None
    assert len(signal._plans._by_class) == 0

"""A template, which is made once for many messages, writes the same as a single send would."""

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
from signalbus.sending.message_templates import MessageTemplate
from signalbus.testing import captured
from signalbus.wire import codec
from signalbus.wire.message import delivery_hex, delivery_id, from_body, stamp, to_body, uuid7
from signalbus.wire.values.class_names import allow_sender
from tasks.admissions.models import Academy, Cohort

from .wire_app import models
from .wire_values import any_text, hashable_leaves, mixed_payloads, saved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db import models as django_models

NUMBERS = iter(range(10**6))
SENDERS = st.sampled_from([None, "a text", "$", "né", Cohort, models.Tagged, models.Point, len, saved(Cohort, pk=1)])


def on_sale(sender: Any, **payload: Any) -> None:
    """Receive."""


def on_sale_too(sender: Any, **payload: Any) -> None:
    """Receive as well."""


@pytest.fixture
def signal() -> Signal:
    """A signal with a receiver."""
    signal = Signal(f"tests.plan_{next(NUMBERS)}", durable=False)
    signal.connect(on_sale)
    return signal


def template_of(signal: Signal, sender: Any = None) -> MessageTemplate | None:
    return signal._templates.of(signal, sender)


def written(sender: object, payload: Mapping[str, object], **options: Any) -> str | None:
    """Write a payload with the short form, if that accepts it."""
    text = codec.write_sender(sender)
    return None if text is None else codec.write_with(text, payload, **options)


# What is written


@settings(max_examples=3 * settings().max_examples)
@given(SENDERS, mixed_payloads | st.dictionaries(any_text, hashable_leaves, max_size=4))
def test_the_short_form_equals_the_encoder(sender, payload):
    """It writes the same characters, or leaves the payload to the encoder."""
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


def test_a_flat_payload_uses_the_short_form():
    """It has plain values, and saved rows with integer keys."""
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
def test_other_payloads_use_the_encoder(payload):
    """These are tags, containers, snapshots and other keys; and refused values, whose error needs the place."""
    assert written(None, payload) is None


def test_a_querydict_is_sent_as_the_dict_of_its_items():
    """`**` reads it in the same way; its items() would have only the last value of each key."""
    payload = QueryDict("a=1&a=2")
    taken: dict[str, Any] = {**payload}
    assert taken == {"a": ["1", "2"]}

    assert written(None, payload) is None
    assert codec.encode(None, payload) == codec.encode(None, {"a": ["1", "2"]})


def test_a_payload_that_is_too_large_has_the_encoders_error():
    """The text of the error is the same."""
    assert written(None, {"text": "x" * 100}, max_bytes=100) is None
    assert written(None, {"text": "x" * 100}, max_bytes=200) is not None


def test_a_row_whose_code_raises_uses_the_encoder(monkeypatch: pytest.MonkeyPatch):
    """The encoder's error names its place."""
    row = saved(Cohort, pk=1)
    codec.encode(None, {"row": row})
    monkeypatch.setattr(Cohort, "pk", property(lambda self: 1 / 0))

    assert written(None, {"row": row}) is None


def test_a_plan_writes_an_ordinary_message(signal: Signal):
    """Its body equals the message's own."""
    with captured() as sent:
        signal.send(Cohort, **FLAT)
        signal.send(Cohort, **FLAT)

    template = template_of(signal, Cohort)
    assert template is not None
    ((part,),) = template.messages(Cohort, [FLAT])
    assert to_body(from_body(part.body)) == part.body
    message = from_body(part.body)
    assert (message.id, message.id.hex) == (part.id, part.key)
    first = from_body(sent._outgoing[0][1].body)
    same = replace(message, id=first.id, root=first.root, sent_at=first.sent_at)
    assert same == first
    assert abs((message.sent_at - first.sent_at).total_seconds()) < 5


def test_send_and_send_robust_write_the_same(signal: Signal):
    """One of them uses a template."""
    with captured() as sent:
        signal.send(Cohort, **FLAT)
        signal.send_robust(Cohort, **FLAT)
        signal.send_many(Cohort, [FLAT])

    bodies = [from_body(item.body) for _, item in sent._outgoing]
    alike = [replace(body, id=bodies[0].id, root=bodies[0].root, sent_at=bodies[0].sent_at) for body in bodies]
    assert alike == [bodies[0]] * 3


def test_a_plan_refuses_reserved_keys(signal: Signal):
    """Receivers get these keys anyway."""
    for _ in range(2):
        with pytest.raises(PayloadError, match="signal: receivers get one"):
            signal.send(None, signal="mine")
        with pytest.raises(PayloadError, match="sender: receivers get one"):
            signal.send_many(None, [{"sender": "mine"}])


# Ids


def test_a_stamp_is_an_id_and_its_time():
    """Both are of one moment."""
    key, micros = stamp()

    assert int(key[:12], 16) == micros // 1000
    assert uuid7().version == 7
    assert key[12] == "7"
    assert key[16] in "89ab"


@given(st.uuids(), st.text())
def test_a_delivery_has_one_id_as_hex_and_as_uuid(message, receiver):
    """Both forms name the same id."""
    assert delivery_id(message, receiver).hex == delivery_hex(message.hex, receiver)


# What is remembered


def test_a_plan_is_made_once_for_a_sender(signal: Signal):
    """Another sender has another template."""
    assert template_of(signal) is template_of(signal) is not None
    assert template_of(signal, Cohort) is template_of(signal, Cohort) is not template_of(signal)


def test_other_forms_of_send_use_the_same_plan(signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """These are the robust form and a bridge."""
    assert template_of(signal, Cohort) is not None
    made = []
    monkeypatch.setattr(MessageTemplate, "__init__", lambda self, *args: made.append(args))
    with captured() as sent:
        signal.send_robust(Cohort, number=1)

    assert len(sent) == 1
    assert made == []


@pytest.mark.parametrize("sender", ["a text", saved(Academy, pk=1)], ids=["text", "row"])
def test_senders_without_a_plan_are_sent(signal: Signal, sender: object):
    """Texts and rows have no template, because their number is unlimited."""
    assert template_of(signal, sender) is None
    with captured() as sent:
        signal.send(sender, number=1)
    assert len(sent) == 1


def recipients(signal: Signal, sender: Any = None) -> tuple[str, ...] | None:
    """Return the present recipients of a message of this sender."""
    with captured() as sent:
        signal.send(sender, number=1)
    return sent[0].recipients if sent else None


ANYBODY, SOMEBODY_ELSE = f"{__name__}.on_sale", f"{__name__}.on_sale_too"


def test_a_plan_follows_connect_and_disconnect(signal: Signal):
    """The next message has the new recipients."""
    assert recipients(signal) == (ANYBODY,)
    signal.connect(on_sale_too)
    assert recipients(signal) == (ANYBODY, SOMEBODY_ELSE)
    signal.disconnect(on_sale)
    assert recipients(signal) == (SOMEBODY_ELSE,)
    signal.connect(on_sale, sender=Cohort)
    assert recipients(signal) == (SOMEBODY_ELSE,)
    assert recipients(signal, Cohort) == (SOMEBODY_ELSE, f"{ANYBODY}[admissions.Cohort]")


class _AllEqual(type):
    """A metaclass whose classes are all equal, and not hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        return True


@pytest.mark.parametrize("lazy", [False, True])
def test_equal_classes_have_templates_of_their_own(signal: Signal, lazy: bool):
    """Senders are compared by identity, as in Django."""
    one = _AllEqual("One", (), {"__module__": models.__name__})
    other: Any = SimpleLazyObject(lambda: one) if lazy else _AllEqual("Other", (), {"__module__": models.__name__})
    signal.connect(on_sale_too, sender=one)
    allow_sender(other)

    assert recipients(signal, other) == (ANYBODY,)
    assert recipients(signal, one) == (ANYBODY, f"{SOMEBODY_ELSE}[{models.__name__}:One]")
    assert recipients(signal, other) == (ANYBODY,)


def test_collected_receivers_are_left_out(signal: Signal):
    """A weakly held receiver ends with its owner."""

    class Held:
        def receive(self, sender: Any, **payload: Any) -> None:
            """Receive."""

    held = Held()
    signal.connect(held.receive, dispatch_uid="held")
    assert recipients(signal) == (ANYBODY, "held")
    del held
    gc.collect()
    assert recipients(signal) == (ANYBODY,)


def test_a_later_receiver_of_the_same_uid_is_an_error(signal: Signal):
    """Django ignores it silently."""
    signal.connect(on_sale_too, dispatch_uid="one uid")
    assert recipients(signal) == (ANYBODY, "one uid")
    signal.connect(on_sale, dispatch_uid="one uid")

    with pytest.raises(ConfigurationError, match="one uid"):
        signal.send(None)

    signal.disconnect(dispatch_uid="one uid")
    assert recipients(signal) == (ANYBODY,)


def test_an_inline_receiver_ends_the_plan(signal: Signal):
    """``send`` returns its response."""
    assert template_of(signal) is not None
    signal.connect(on_sale_too, inline=True)

    assert template_of(signal) is None
    with captured():
        assert signal.send(None, number=1) == [(on_sale_too, None)]


def test_a_plan_follows_a_replaced_list_of_receivers(signal: Signal):
    """factory_boy's mute_signals replaces Django's list, and puts it back."""
    assert recipients(signal) == (ANYBODY,)
    before, signal.receivers = signal.receivers, []
    assert recipients(signal) is None
    signal.receivers = before
    assert recipients(signal) == (ANYBODY,)


def test_the_router_is_asked_for_each_message(signal: Signal):
    """The router's answer may depend on the state of the thread."""

    class Router:
        def db_for_write(self, model: type[django_models.Model], **hints: Any) -> str | None:
            return "other" if model._meta.app_label == "signalbus" else None

    assert template_of(signal) is not None
    with override_settings(DATABASE_ROUTERS=[Router()]):
        template = template_of(signal)
        assert template is not None
        assert template.shared.ledger == "other"
    template = template_of(signal)
    assert template is not None
    assert template.shared.ledger == "default"


def test_a_plan_follows_the_signals_attributes(signal: Signal):
    """A test may make a signal non-durable: the next message is."""
    before = template_of(signal)
    assert before is not None
    signal.durable = not before.shared.durable
    after = template_of(signal)
    assert after is not None
    assert after.shared.durable is not before.shared.durable
    signal.open = True
    assert template_of(signal) is None


def test_limits_are_read_for_each_message(signal: Signal):
    """A template outlives a change of settings."""
    signal.send_robust(None)
    with captured():
        signal.send(None, text="x" * 300)
        with override_settings(SIGNALBUS={"MAX_BYTES": 200}), pytest.raises(PayloadError, match="200 are allowed"):
            signal.send(None, text="x" * 300)


def test_a_plan_does_not_keep_its_sender_alive(signal: Signal):
    """Both are collected."""
    brief = type("Brief", (), {"__module__": models.__name__})
    assert template_of(signal, brief) is not None
    ended = weakref.ref(brief)
    del brief
    gc.collect()

    assert ended() is None
    assert len(signal._templates._by_class) == 0

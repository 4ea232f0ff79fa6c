"""Payloads as people see them: plain values, with secrets hidden."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given, strategies

from signalbus.services.redaction import HIDDEN, shown_payload, text_without_secrets
from signalbus.wire.codec import encode
from tasks.admissions.models import Cohort


def shown(**payload: Any) -> Any:
    """Encode a payload, and return its values as people see them."""
    text, _ = encode(None, payload)
    return shown_payload(text)[1]


def test_values_are_shown_as_plain_json():
    """Tagged values are shown by their text, containers as lists and dicts."""
    number = uuid.UUID(int=7)
    assert shown(
        number=1,
        price=Decimal("1.50"),
        uuid=number,
        at=datetime(2026, 11, 30, 12, tzinfo=UTC),
        span=timedelta(hours=1),
        pair=(1, Decimal(2)),
        odd={"$odd": 1},
    ) == {
        "number": 1,
        "price": "1.50",
        "uuid": str(number),
        "at": "2026-11-30 12:00:00+00:00",
        "span": "1:00:00",
        "pair": [1, "2"],
        "odd": {"$odd": 1},
    }


def test_a_row_is_shown_by_label_and_key():
    """No row is loaded: a test without a database would fail."""
    cohort = Cohort(pk=42)
    cohort._state.adding = False

    assert shown(instance=cohort) == {"instance": "admissions.Cohort 42"}


def test_the_sender_is_shown_by_its_name():
    """A class is named as it travels."""
    text, _ = encode(Cohort, {})
    assert shown_payload(text)[0] == "admissions.Cohort"


@pytest.mark.parametrize("key", ["password", "api_key", "SECRET", "auth_token", "signature"])
def test_a_secret_is_hidden_at_every_depth(key: str):
    """The names that Django hides from its own error pages are hidden here."""
    values = shown(**{key: "hunter2"}, a={"b": [{key: "hunter2"}]}, c={"$odd": {key: "hunter2"}})

    assert "hunter2" not in json.dumps(values)
    assert values["a"]["b"][0][key] == HIDDEN


def test_secrets_of_classes_that_are_not_here_are_hidden():
    """Dataclass instances and snapshots are shown without their classes, and without their secrets."""
    login = '{"$data":["shop.values:Login",{"user":"ann","password":"hunter2"}]}'
    user = '{"$snapshot":["shop.User",false,null,{"id":7,"password":"hunter2"},{"token":"hunter2"}]}'

    _, values = shown_payload(f'[null,{{"login":{login},"user":{user}}}]')

    assert values == {
        "login": {"class": "shop.values:Login", "user": "ann", "password": HIDDEN},
        "user": {"snapshot": "shop.User", "id": 7, "password": HIDDEN, "token": HIDDEN},
    }


SECRETS_BY_A_NAME_BESIDE = pytest.mark.parametrize(
    "value",
    [
        ("password", "hunter2"),
        [["Authorization", "hunter2"], ["Cookie", "a=hunter2"], ("X-Api-Key", "hunter2")],
        {"name": "sessionid", "value": "hunter2"},
        [{"header": "Set-Cookie", "content": ["hunter2"]}],
        {"cookies": {"sid": "hunter2"}},
        "https://shop.example.com/callback?id=7&access_token=hunter2&page=2",
        "postgres://ana:hunter2@db.example.com:5432/shop",
        "redis://:hunter2@cache/0",
        "host=db password=hunter2 user=ana",
        "password='hunter2 is long' user=ana",
        'PASSWORD="hunter2',
        "POST failed: {'user': 'ana', 'password': 'hunter2'}",
        '{"user": "ana", "api_key": "hunter2"}',
        "GET / HTTP/1.1\r\nAuthorization: Basic hunter2\r\nHost: example.com",
        "curl -H 'accept: json' -H 'x: Bearer hunter2hunter2'",
    ],
    ids=str,
)  # fmt: skip


@SECRETS_BY_A_NAME_BESIDE
def test_a_secret_is_hidden_by_the_name_beside_it(value: Any):
    """A pair, a dict of name and value, an assignment, a URL and a header name a secret as a key does."""
    values = shown(value=value)

    assert "hunter2" not in json.dumps(values)
    assert HIDDEN in json.dumps(values)


@pytest.mark.parametrize(
    "value",
    [
        ("crm", "x"),
        {"name": "slug", "value": "web-42"},
        "https://shop.example.com:8000/orders/?page=2&sort=name",
        "KeyError: 'slug'",
        "the token is expired; a=1, b=2",
        "mail ana@example.com: 10:15",
        ["password", "email", "name"],
    ],
    ids=str,
)
def test_what_is_no_secret_is_shown_whole(value: Any):
    """A name that only looks like one hides nothing."""
    assert shown(value=value) == json.loads(json.dumps({"value": value}))


@pytest.mark.parametrize("part", ["a.", "a=", "'a':", "://", "://a:", '="', "a://b:", "bearer ", "password='", "-"])
def test_a_long_text_is_searched_for_secrets_once(part: str):
    """A hostile text of a megabyte takes no longer than an ordinary one: a quadratic search would take hours."""
    text = part * (1_000_000 // len(part))

    assert len(text_without_secrets(text)) >= len(part)


def test_more_names_can_be_hidden():
    """SIGNALBUS["REDACT"] adds keys, in any case."""
    with override_settings(SIGNALBUS={"REDACT": ["iban"]}):
        assert shown(IBAN="DE02", number=1) == {"IBAN": HIDDEN, "number": 1}


def test_secrets_are_shown_on_demand():
    """A caller with the permission to do so gets the values."""
    text, _ = encode(None, {"password": "hunter2"})
    assert shown_payload(text, reveal=True)[1] == {"password": "hunter2"}


def test_bad_input_an_invalid_payload_is_refused():
    """A payload that somebody cut by hand raises one kind of error."""
    for text in ("[", "{}", "[1]", "null"):
        with pytest.raises(ValueError):
            shown_payload(text)


@given(
    strategies.recursive(
        strategies.one_of(
            strategies.none(), strategies.booleans(), strategies.text(), strategies.binary(), strategies.dates()
        ),
        lambda inner: strategies.one_of(
            strategies.lists(inner), strategies.dictionaries(strategies.text(), inner), strategies.tuples(inner)
        ),
        max_leaves=8,
    )
)
def test_whatever_can_be_sent_can_be_shown(value: Any):
    """Every payload that the codec writes is shown as values that JSON knows."""
    json.dumps(shown(value=value))

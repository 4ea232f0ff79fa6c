"""Snapshots of values that ``save()`` accepts, anonymous users, and models that raise while an instance is made."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import modify_settings
from django.utils.functional import SimpleLazyObject

from signalbus.exceptions import PayloadError, UnknownClass, UnknownVersion
from signalbus.wire import codec
from signalbus.wire.message import from_body
from signalbus.wire.values.references import Snapshot

from .wire_app import models
from .wire_values import rows, saved


@pytest.fixture(scope="module", autouse=True)
def wire_app():
    """Install the app that the test models belong to."""
    with modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"}):
        yield


class Grade(enum.IntEnum):
    """An enumeration that no worker would find: its module belongs to no app."""

    GOOD = 2


class Size(str, enum.Enum):  # noqa: UP042 - whose str() is no value, unlike a StrEnum's
    """The same, with texts."""

    BIG = "big"


def travel(value: Any) -> Any:
    """Send one value and receive it."""
    return codec.decode(codec.encode(None, {"value": value})[0], rows)[1]["value"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("answers", {1: "a", "b": {2: (3,)}}, {"1": "a", "b": {"2": [3]}}),
        ("price", models.Amount("5.00"), "5.00"),
        ("grade", Grade.GOOD, 2),
        ("size", Size.BIG, "big"),
    ],
)
def test_a_value_that_cannot_travel_is_sent_as_its_column_stores_it(field, value, expected):
    """A value that ``save()`` accepts can be sent, and arrives in the database's form."""
    arrived = travel(Snapshot(saved(models.Priced, pk=1, **{field: value})))

    assert vars(arrived)[field] == expected
    assert type(vars(arrived)[field]) is type(expected)


@pytest.mark.parametrize("adding", [True, False])
def test_an_encrypted_field_travels_as_its_column_stores_it(adding):
    """Plain text is neither on the broker nor in the ledger; the worker decrypts what arrives."""
    patient = saved(models.Patient, pk=1, name="Ada", diagnosis="measles", number=1234)
    patient._state.adding = adding

    text, version = codec.encode(None, {"value": Snapshot(patient)})
    arrived = codec.decode(text, rows)[1]["value"]

    assert "Ada" in text
    assert "measles" not in text
    assert "1234" not in text
    assert version == "4"
    assert (arrived.name, arrived.diagnosis, arrived.number) == ("Ada", "measles", 1234)


def test_an_encrypted_field_travels_encrypted_beside_a_reference():
    """A reference to a receiver with on_missing="snapshot" takes the field values along."""
    patient = saved(models.Patient, pk=1, name="Ada", diagnosis="measles")

    text, _ = codec.encode(None, {"value": patient}, snapshots=True)

    assert "Ada" in text
    assert "measles" not in text


def test_an_empty_encrypted_field_needs_no_newer_worker():
    """Nor does one that holds in memory what it stores."""
    palindrome = saved(models.Patient, pk=1, name="Ada", diagnosis="noon")

    assert codec.encode(None, {"value": Snapshot(palindrome)})[1] == "1"
    assert travel(Snapshot(palindrome)).diagnosis == "noon"


def test_a_value_that_cannot_be_encrypted_is_refused(monkeypatch):
    """A value that the field cannot store is not sent as plain text; the error names the field."""
    monkeypatch.setattr(models.EncryptedField, "get_prep_value", lambda self, value: 1 / 0)

    with pytest.raises(PayloadError, match=r"value\.diagnosis: a str could not be encoded, it raised ZeroDivision"):
        travel(Snapshot(saved(models.Patient, pk=1, name="Ada", diagnosis="measles")))


def test_a_value_that_cannot_be_decrypted_is_a_failed_attempt(monkeypatch):
    """A worker without the key gets the field's own error, as for a row that it loads."""
    text, _ = codec.encode(None, {"value": Snapshot(saved(models.Patient, pk=1, name="Ada", diagnosis="measles"))})
    monkeypatch.setattr(models.EncryptedField, "from_db_value", lambda *args: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        codec.decode(text, rows)


def test_a_value_that_its_field_could_not_store_is_still_refused():
    """The error names the field of the snapshot."""
    with pytest.raises(PayloadError, match=r"value\.answers\.a"):
        travel(Snapshot(saved(models.Priced, pk=1, answers={"a": object()})))
    with pytest.raises(PayloadError, match=r"value\.grade"):
        travel(Snapshot(saved(models.Priced, pk=1, grade=object())))


def test_an_error_of_the_models_code_is_raised_unchanged():
    """Such an error is a failed attempt with its traceback, and does not park the message."""
    text, _ = codec.encode(None, {"value": Snapshot(saved(models.Thing, pk=1))})
    text = text.replace("wire_app.Thing", "wire_app.Picky").replace('"name":"thing"', '"path":"a"')

    with pytest.raises(FileNotFoundError, match="no file") as caught:
        codec.decode(text, rows)

    assert "from_db" in [entry.name for entry in caught.traceback]


@pytest.mark.parametrize("user", [AnonymousUser(), SimpleLazyObject(AnonymousUser)], ids=["plain", "lazy"])
def test_an_anonymous_user_travels(user):
    """``request.user`` arrives as an AnonymousUser; an older worker parks the message."""
    text, version = codec.encode(None, {"user": user, "others": [user]})
    payload = codec.decode(text, rows)[1]

    assert type(payload["user"]) is AnonymousUser
    assert payload == {"user": AnonymousUser(), "others": [AnonymousUser()]}
    assert version == "3"
    with pytest.raises(UnknownVersion):
        from_body("99\n{}\n")


def test_an_anonymous_user_needs_auth():
    """A worker without django.contrib.auth parks the message and names what to install."""
    text, _ = codec.encode(None, {"user": AnonymousUser()})

    with (
        modify_settings(INSTALLED_APPS={"remove": ["django.contrib.auth", "django.contrib.admin"]}),
        pytest.raises(UnknownClass, match=r"django\.contrib\.auth"),
    ):
        codec.decode(text, rows)

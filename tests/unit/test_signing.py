"""The signature: a text that no key holder wrote is never opened."""

from __future__ import annotations

import hmac
import os
import random
import string

import pytest

from signalbus.exceptions import ConfigurationError, Forged, Garbage, TextError, TooLarge, UnknownKey
from signalbus.wire.headers import HEADER_BYTES
from signalbus.wire.signing import Signer

FUZZ = int(os.environ.get("SIGNALBUS_FUZZ", "20000"))
BODY = '1\n{"i":"0"}\n[null,{"a":[1,2,3]}]'


def a_signer(*keys: str, max_bytes: int = 1000) -> Signer:
    return Signer(keys or ("secret",), max_bytes)


def test_a_signed_body_opens():
    """A key holder's body comes back unchanged."""
    signer = a_signer()

    assert signer.verify(signer.sign(BODY)) == BODY


@pytest.mark.parametrize("body", ["", "x", "x" * 63, "x" * 64, "x" * 65, BODY, "x" * 1000])
def test_the_signature_is_the_standard_library_s_hmac(body: str):
    """Half of it is computed once for a key; older workers must accept the result."""
    secret = b"secret"
    key = hmac.digest(secret, b"signalbus.wire.signing key", "sha256")

    assert a_signer(secret.decode()).sign(body)[9:73] == hmac.digest(key, body.encode(), "sha256").hex()


def test_an_empty_body_opens():
    """The frame does not look at the body."""
    assert a_signer().verify(a_signer().sign("")) == ""


def test_the_first_key_signs_and_all_verify():
    """A key is rotated by adding the new one in front."""
    old, new, both = a_signer("old"), a_signer("new"), a_signer("new", "old")

    assert both.verify(old.sign(BODY)) == BODY
    assert new.verify(both.sign(BODY)) == BODY


def test_an_unknown_key_is_named():
    """A worker without the key can name it, and park the text."""
    text = a_signer("theirs").sign(BODY)

    with pytest.raises(UnknownKey) as caught:
        a_signer("ours").verify(text)

    assert text[:8] == caught.value.key_id


def test_the_key_id_does_not_show_the_key():
    """It is derived, different for each key, and in the alphabet of URLs."""
    ids = {a_signer(f"key {n}").sign(BODY)[:8] for n in range(50)}

    assert len(ids) == 50
    assert set("".join(ids)) <= set(string.ascii_letters + string.digits + "-_")


@pytest.mark.parametrize("keys", [[], [""], ["good", ""]])
def test_an_empty_key_is_refused(keys):
    """Everybody would have it."""
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        Signer(keys, 1000)


@pytest.mark.parametrize("key", ["é", "\ud800", "x" * 1000])
def test_any_text_is_a_key(key):
    """A secret may have any character."""
    assert a_signer(key).verify(a_signer(key).sign(BODY)) == BODY


@pytest.mark.parametrize("text", [None, 1, b"bytes", [], {}, "", "x", "a.b.c", "é" * 100, "\x00" * 200, "." * 200])
def test_other_texts_are_garbage(text):
    """They are refused before they are parsed."""
    with pytest.raises(Garbage):
        a_signer().verify(text)


def test_a_body_that_is_not_ascii_is_garbage():
    """Only in ASCII the size in characters is the size in bytes."""
    with pytest.raises(Garbage):
        a_signer().verify(a_signer().sign(BODY) + "é")


def test_the_size_is_checked_first():
    """A text that is too large costs no signature."""
    with pytest.raises(TooLarge):
        a_signer(max_bytes=100).verify("x" * (HEADER_BYTES + 1000))


def test_a_text_too_large_to_verify_is_not_signed():
    """The same settings verify every signed text."""
    signer = a_signer(max_bytes=100)
    largest = "x" * (HEADER_BYTES + 100)

    assert largest == signer.verify(signer.sign(largest))
    with pytest.raises(TooLarge):
        signer.sign(largest + "x")


def test_a_signature_fits_one_body_and_one_key():
    """Another text's signature is forged."""
    signer = a_signer("one", "two")
    one, two = a_signer("one").sign(BODY), a_signer("two").sign(BODY)
    other = a_signer("one").sign(BODY + " ")

    for forged in (two[:8] + one[8:], one[:74] + other[74:], one[:9] + two[9:73] + one[73:]):
        with pytest.raises(Forged):
            signer.verify(forged)


def mutate(text: str, other: str, choose: random.Random) -> str:
    """Change a text in one of the ways of a fault or a forger."""
    at, to = sorted((choose.randrange(len(text)), choose.randrange(len(text))))
    match choose.randrange(9):
        case 0:
            return text[:at] + chr(ord(text[at]) ^ 1 << choose.randrange(8)) + text[at + 1 :]
        case 1:
            return text[:at]
        case 2:
            return text[at:]
        case 3:
            return text[:at] + text[to:]
        case 4:
            return text[:at] + text[at:to] * 2 + text[to:]
        case 5:
            return text[:at] + chr(choose.randrange(0x110000)) + text[at:]
        case 6:
            return text[:at] + other[at:]
        case 7:
            return text[:at].swapcase() + text[at:]
        case _:
            return "".join(choose.choices(string.printable, k=8)) + text[8:]


def test_no_mutated_text_is_accepted():
    """It is refused, with no error but ours."""
    choose = random.Random(0)
    signer = a_signer("one", "two")
    signed = [a_signer(key).sign(body) for key in ("one", "two") for body in (BODY, BODY[:-1], "", "x" * 50)]
    refused = 0

    for _ in range(FUZZ):
        mutated = mutate(choose.choice(signed), choose.choice(signed), choose)
        if mutated in signed:
            continue
        with pytest.raises(TextError):
            signer.verify(mutated)
        refused += 1

    assert refused > FUZZ * 0.8

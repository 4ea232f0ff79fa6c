"""Sign bodies and verify texts, so that no text is parsed that a holder of a key did not write.

`conf.signer()` makes the `Signer` of the settings' keys; the publisher signs with it, and workers verify.
"""

from __future__ import annotations

import base64
import hmac
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from signalbus.exceptions import ConfigurationError, Forged, Garbage, TooLarge, UnknownKey
from signalbus.wire.headers import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

# The frame is for ever: 8 characters of key id, 64 of HMAC-SHA256 in hex, the body.
_FRAME: Final = re.compile(r"([A-Za-z0-9_-]{8})\.([0-9a-f]{64})\.")
_FRAME_BYTES: Final = 8 + 1 + 64 + 1
# Derived keys: SECRET_KEY signs other things too, and its id, which anyone may read, must not help to find it.
_KEY_SALT: Final = b"signalbus.wire.signing key"
_ID_SALT: Final = b"signalbus.wire.signing id"

_BLOCK: Final = sha256().block_size
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))  # the pads of RFC 2104, as tables for translate()
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class _Key:
    """HMAC-SHA256 (RFC 2104) by one key, whose two blocks are hashed once instead of for each text.

    Args:
        secret: the key, of no more than a block.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: bytes) -> None:
        block = secret.ljust(_BLOCK, b"\0")
        self._inner = sha256(block.translate(_INNER))
        self._outer = sha256(block.translate(_OUTER))

    def mac(self, body: bytes) -> str:
        """Return ``hmac.digest(key, body, "sha256").hex()``, computed in half of the time."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.hexdigest()


class Signer:
    """Sign bodies, and verify texts.

    Args:
        keys: the secrets; the first one signs, all of them verify.
        max_bytes: how large a payload may be; a text may be larger by its header and its signature.

    Raises:
        ConfigurationError: there is no key, or an empty one.
    """

    def __init__(self, keys: Sequence[str], max_bytes: int) -> None:
        if not keys or not all(keys):
            raise ConfigurationError("no key to sign with: set SECRET_KEY, or SIGNALBUS['SIGNING_KEYS'], to a text")
        self._max_body = max_bytes + HEADER_BYTES
        self._keys: dict[str, _Key] = {}
        for key in keys:
            secret = key.encode("utf-8", "surrogatepass")
            self._keys.setdefault(_key_id(secret), _Key(hmac.digest(secret, _KEY_SALT, "sha256")))
        self._key_id, key_in_use = next(iter(self._keys.items()))
        self._mac = key_in_use.mac

    def sign(self, body: str) -> str:
        """Make a text of a body: ``keyid.mac.body``.

        Raises:
            TooLarge: no worker with these settings would open it.
        """
        if len(body) > self._max_body:
            raise TooLarge(f"a body of {len(body)} bytes, {self._max_body} are allowed: raise SIGNALBUS['MAX_BYTES']")
        return f"{self._key_id}.{self._mac(body.encode('ascii'))}.{body}"

    def verify(self, text: object) -> str:
        """Return the body of a text that a holder of one of the keys signed; check its size and shape first.

        Args:
            text: a text from a queue, not verified yet.

        Raises:
            Garbage: not one of our texts.
            TooLarge: over the limit.
            UnknownKey: signed with a key that is not held here.
            Forged: the signature does not fit.
        """
        if type(text) is not str:
            raise Garbage(f"a {type(text).__name__}, not a text")
        if len(text) > self._max_body + _FRAME_BYTES:
            raise TooLarge(f"{len(text)} bytes, {self._max_body + _FRAME_BYTES} are allowed by SIGNALBUS['MAX_BYTES']")
        frame = _FRAME.match(text)
        if frame is None or not text.isascii():
            raise Garbage("not one of our texts: it does not start with a key id and a signature, or is not ASCII")
        key_id, mac = frame.groups()
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownKey(key_id)
        body = text[_FRAME_BYTES:]
        if not hmac.compare_digest(mac, key.mac(body.encode("ascii"))):
            raise Forged(f"the signature by key {key_id} does not fit the text")
        return body


def _key_id(secret: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(secret, _ID_SALT, "sha256")[:6]).decode("ascii")

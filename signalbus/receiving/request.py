"""What a worker's main process makes of a Celery message for our task, before any child sees it.

Whoever can write to the broker chooses everything in such a message. Celery hands it to a child as it came: arguments
or headers nested a few hundred deep end the main process when they are pickled, and so does a message without an id.
"""

from __future__ import annotations

import json
import reprlib
from typing import TYPE_CHECKING, Any

from celery.exceptions import InvalidTaskError
from celery.worker.request import Request

if TYPE_CHECKING:
    from kombu.message import Message

MALFORMED = (AttributeError, KeyError, LookupError, OverflowError, TypeError, ValueError)
SCALARS = frozenset({str, int, float, bool, type(None)})


def _scalars(given: Any) -> dict[str, Any]:
    """Return what is flat in a dict: all that Celery itself puts into headers for our task is."""
    items = given.items() if isinstance(given, dict) else ()
    return {key: value for key, value in items if type(value) in SCALARS}


class DeliverRequest(Request):
    """A request to deliver texts: an id, one list of texts, and nothing else that could do harm.

    Args:
        message: the Celery message.
        options: as Celery gives them.

    Raises:
        InvalidTaskError: a message without the parts of one; Celery logs and drops it.
    """

    _args: Any
    _kwargs: Any
    _request_dict: dict[str, Any]

    def __init__(self, message: Message, **options: Any) -> None:
        try:
            super().__init__(message, **options)
            _, _, embedded = message.payload
        except MALFORMED as error:
            raise InvalidTaskError(f"not a message for {message.headers.get('task')!r}: {error!r}") from error
        if not isinstance(self.id, str):
            raise InvalidTaskError(f"a message's id is a text, not {reprlib.repr(self.id)}")
        if not self._is_flat():
            # The child refuses it, and keeps what it is shown here as a dead letter.
            self._args = [[reprlib.repr((self._args, self._kwargs))]]
        elif not any(embedded.values() if isinstance(embedded, dict) else [embedded]):
            self._make_flat()
            return
        # Callbacks, chains and chords are not ours: anybody may have added them.
        self._body = json.dumps([self._args, {}, {}]).encode()
        self._content_type, self._content_encoding = "application/json", "utf-8"
        self._make_flat()

    def _is_flat(self) -> bool:
        arguments = self._args
        return (
            isinstance(arguments, list)
            and len(arguments) == 1
            and isinstance(arguments[0], list)
            and all(isinstance(text, str) for text in arguments[0])
            and not self._kwargs
        )

    def _make_flat(self) -> None:
        """Keep what is flat of the headers; the arguments travel in the body, and need not travel twice."""
        nested = {key: _scalars(self._request_dict.get(key)) for key in ("properties", "delivery_info")}
        self._request_dict = {**_scalars(self._request_dict), **nested}
        self._request_dict["args"], self._request_dict["kwargs"] = (), {}
        self._kwargs = {}
        # The worker's limits, not the message's.
        self.time_limits = (None, None)

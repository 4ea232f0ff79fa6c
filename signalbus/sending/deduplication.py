"""Read the options ``unique=``, ``debounce=`` and ``max_wait=``, and compute the key that equal messages share.

`signal` reads the options, and `message_templates` asks for the key of each message (decision 0035). Which message
waits is decided in the ledger: `ledger/sends/duplicates`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any
from uuid import UUID

from signalbus.exceptions import ConfigurationError
from signalbus.wire import codec
from signalbus.wire.values.tags import Tag

Unique = str | Callable[[Mapping[str, Any]], Any] | bool
Recipients = Mapping[str | None, tuple[str, ...] | None]

LONGEST = 86400.0  # seconds that a burst may be waited out
BURSTS = 10  # of the pauses that end a burst, and it has lasted long enough if nothing else is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Deduplication:
    """The rule by which a waiting message of a signal stands for equal ones.

    Args:
        unique: a payload key, a function of the payload, or True for the whole payload; False: all messages are equal.
        debounce: seconds without another message, after which the last of a burst is published; None: the first
            stands for the others, and is not held back.
        max_wait: seconds after which a burst that goes on is ended.
    """

    unique: Unique = False
    debounce: float | None = None
    max_wait: float = 0.0

    def key(
        self,
        signal: str,
        sender: Any,
        payload: Mapping[str, Any],
        recipients: Recipients,
        context: Mapping[str, Any],
    ) -> UUID | None:
        """Return the key that equal messages share; None for a message that has no equal.

        Messages to other recipients are not equal: a new receiver must not miss a message of an older process. Nor
        are messages of another context, such as another tenant.

        Args:
            signal: the signal's name.
            sender: the sender.
            payload: the payload.
            recipients: the receivers' ids by queue.
            context: the carried context of the sender.

        Raises:
            PayloadError: the value of the key cannot be encoded.
        """
        values: Mapping[str, Any] = {}
        if self.unique is True:
            values = payload
        elif self.unique is not False:
            value = payload.get(self.unique) if isinstance(self.unique, str) else self.unique(payload)
            if value is None:
                return None
            values = {"key": value}
        receivers = sorted(receiver for some in recipients.values() for receiver in some or ())
        text, _version = codec.encode(sender, values)
        around = [dict(context)] if context else []
        equal = json.dumps([signal, receivers, _in_order(json.loads(text)), *around], sort_keys=True)
        return UUID(bytes=blake2b(equal.encode(), digest_size=16, person=b"signalbus once").digest(), version=5)


def _in_order(value: Any) -> Any:
    """Sort the items of encoded sets: equal sets may have any order."""
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    if isinstance(value, dict):
        value = {key: _in_order(item) for key, item in value.items()}
        for tag in (Tag.SET, Tag.FROZENSET):
            if isinstance(value.get(tag.key), list):
                value[tag.key].sort(key=json.dumps)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRule:
    """The rule for the rows of a message that is not simply published after the commit.

    Args:
        due: when to publish it, from the database's now or at a time; None: at once.
        deduplication: its signal's rule of deduplication.
        key: the key that equal messages share.
    """

    due: timedelta | datetime | None = None
    deduplication: Deduplication | None = None
    key: UUID | None = None


def deduplication_from(
    unique: object, debounce: object, max_wait: object, *, durable: bool, ordered_by: object
) -> Deduplication | None:
    """Return the rule of deduplication that a signal's options declare.

    Args:
        unique: as `Signal` takes it.
        debounce: as above.
        max_wait: as above.
        durable: whether its messages have rows.
        ordered_by: the signal's ``ordered_by``, or None.

    Returns:
        The rule; None if the signal has none.

    Raises:
        ConfigurationError: the options are invalid, or contradict each other.
    """
    if unique is False and debounce is None and max_wait is None:
        return None
    if not isinstance(unique, bool) and not callable(unique) and not (isinstance(unique, str) and unique):
        raise ConfigurationError(
            f'unique={unique!r}: give a key of the payload, as in unique="slug", a function of the payload, or True '
            "for the whole payload."
        )
    if not durable:
        raise ConfigurationError(
            "unique= and debounce= need durable=True: which messages wait stands in the ledger's rows. Leave "
            "durable=False out, or these."
        )
    if debounce is None:
        if max_wait is not None:
            raise ConfigurationError("max_wait= ends the burst that debounce= waits out: give debounce= as well.")
        return Deduplication(unique=unique)
    if ordered_by is not None:
        raise ConfigurationError(
            "debounce= and ordered_by= do not go together: what waits for a burst's end would hold back all that comes "
            "after it. Leave one of them out."
        )
    pause = _seconds("debounce", debounce)
    longest = pause * BURSTS if max_wait is None else _seconds("max_wait", max_wait)
    if longest < pause:
        raise ConfigurationError(
            f"max_wait={max_wait!r} is less than debounce={debounce!r}: no burst would be waited out."
        )
    return Deduplication(unique=unique, debounce=pause, max_wait=longest)


def _seconds(name: str, value: object) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST:
        raise ConfigurationError(f"{name}={value!r}: give seconds, or a timedelta, of more than 0 and up to a day.")
    return float(seconds)

"""Read a filter of deliveries, as ``state:dead receiver:crm.* since:2h``, and apply it to a query of the ledger.

One language for every command that lists or changes deliveries. A filter is a frozen value: an operation stores it as
text, and a later process gets the same deliveries from it.
"""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from django.apps import apps
from django.db.models import Q
from django.utils.dateparse import parse_datetime

from signalbus.celery import default_queue
from signalbus.exceptions import ConfigurationError
from signalbus.ledger.base.deliveries import storable
from signalbus.models import FailedAttempt, State, StoredMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_CHARACTERS: Final = 1000  # of a filter: more is no filter that somebody typed
MAX_WORDS: Final = 20
_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER: Final = re.compile(r"(>=|<=|>|<|=)?([0-9]{1,9})")
_COMPARISONS: Final = {">": "__gt", ">=": "__gte", "<": "__lt", "<=": "__lte", "=": "", None: ""}
_EXAMPLE: Final = "write words as state:dead receiver:crm.sync since:2h"


class FilterError(ConfigurationError):
    """A word of a filter cannot be read; the text says which, and what to write."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on deliveries.

    Args:
        words: the words as they were read, in their order: the text of the filter.
        condition: the same as a condition on `Delivery`.
        states: the states that it names; empty if it names none.
    """

    words: tuple[str, ...]
    condition: Q
    states: tuple[State, ...] = ()

    def __str__(self) -> str:
        return " ".join(self.words)

    def __bool__(self) -> bool:
        return bool(self.words)


def parse_filter(words: Iterable[str], now: datetime) -> Filter:
    """Read a filter.

    Args:
        words: as ``key:value``; several words must all hold, and several values with commas between them are
            alternatives. In names and errors a star stands for any text at the beginning or the end.
        now: the ledger's time, as its columns are read (`signalbus.ledger.operations.clock_of`), to count ages from.

    Returns:
        The filter. Ages are replaced by times, so that it selects the same deliveries later.

    Raises:
        FilterError: a word without a key, a key or a value that does not exist; with the remedy.
    """
    given = list(words)
    if len(given) > MAX_WORDS or sum(map(len, given)) > MAX_CHARACTERS:
        raise FilterError(f"A filter has at most {MAX_WORDS} words and {MAX_CHARACTERS} characters.")
    read, condition, states = [], Q(), []
    for word in given:
        if storable(word) != word:
            raise FilterError(f"{word!r} has a character that no database stores: write a star for its end.")
        key, colon, value = word.partition(":")
        if not colon or not value:
            raise FilterError(f"{word!r} is no word of a filter: {_EXAMPLE}.")
        if key in _TIMES:
            moment = _moment(key, value, now)
            condition &= Q(**{_TIMES[key]: moment})
            read.append(f"{key}:{moment.isoformat()}")
            continue
        if key.partition(".")[0] == "payload":
            raise FilterError(
                f"{key!r}: payloads are not searched, as no index has them. Name a row of the payload, as "
                "subject:shop.order:42, or a part of the error, as error:*42*."
            )
        if key not in _KEYS:
            raise FilterError(f"{key!r} is no key of a filter: {_suggest(key, [*_KEYS, *_TIMES])}.")
        condition &= _any_of(_KEYS[key](each) for each in value.split(","))
        if key == "state":
            states += [State(each) for each in value.split(",")]
        read.append(word)
    return Filter(tuple(read), condition, tuple(states))


def _any_of(conditions: Iterable[Q]) -> Q:
    combined = Q()
    for condition in conditions:
        combined |= condition
    return combined


def _suggest(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f"did you mean {close[0]!r}" if close else f"there are {', '.join(names)}"


def _text(column: str) -> Callable[[str], Q]:
    """Return a reader of a text: the whole of the column, or with stars a part of it."""

    def read(value: str) -> Q:
        inner = value.strip("*")
        if not inner:
            raise FilterError(f"{value!r} selects everything: leave the word out.")
        look_up = {
            (False, False): "",
            (False, True): "__startswith",
            (True, False): "__endswith",
            (True, True): "__contains",
        }[value.startswith("*"), value.endswith("*")]
        return Q(**{f"{column}{look_up}": inner})

    return read


def _error(value: str) -> Q:
    """Read the type of an exception, or with stars a part of an error's text."""
    return _text("error")(value) if "*" in value else Q(error=value) | Q(error__startswith=f"{value}:")


def _state(value: str) -> Q:
    if value not in State.values:
        raise FilterError(f"state:{value}: no such state: {_suggest(value, State.values)}.")
    return Q(state=value)


def _queue(value: str) -> Q:
    named = _text("queue")(value)
    return named | Q(queue="") if value == default_queue() else named


def subject_from(value: str) -> str:
    """Return a subject as the ledger has it.

    Args:
        value: ``app.model:pk``, the model in any case; or the subject itself, as ``app.Model pk``.
    """
    label, colon, pk = value.partition(":")
    if not colon:
        return value
    with suppress(LookupError, ValueError):  # a model that is gone keeps the subject that it had
        label = apps.get_model(label)._meta.label  # noqa: SLF001 - Django documents it
    return f"{label} {pk}"


def _subject(value: str) -> Q:
    return Q(message__subject=subject_from(value))


def _id(column: str) -> Callable[[str], Q]:
    def read(value: str) -> Q:
        try:
            return Q(**{column: UUID(value)})
        except ValueError as error:
            raise FilterError(f"{value!r} is no id: give all of it, as `failed` and `show` print it.") from error

    return read


def _root(value: str) -> Q:
    """Read the id of the message that a cascade began with: that message, and all that record it as their root."""
    root = _id("id")(value)
    messages = StoredMessage.objects.filter(root | Q(root=UUID(value)))
    return Q(message_id__in=messages.values("id"))


def _release(value: str) -> Q:
    """Read a release: deliveries of which an attempt failed in it. What succeeds does not keep its release."""
    failed = FailedAttempt.objects.filter(_text("release")(value))
    return Q(id__in=failed.values("delivery_id"))


def _attempts(value: str) -> Q:
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise FilterError(f"attempts:{value}: give a number, as attempts:3 or attempts:>1.")
    return Q(**{f"attempts{_COMPARISONS[match[1]]}": int(match[2])})


def _moment(key: str, value: str, now: datetime) -> datetime:
    age = _AGE.fullmatch(value)
    try:
        if age is not None:
            return now - timedelta(seconds=int(age[1]) * _SECONDS[age[2]])
        moment = parse_datetime(value)
        if moment is not None:
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # well formed, and no time: a 30th of February, or before the year 1
        moment = None
    if moment is None:
        raise FilterError(f"{key}:{value}: give an age, as 90m, 2h or 7d, or a time, as 2026-11-30T10:00.")
    return moment.replace(tzinfo=None) if now.tzinfo is None else moment


_TIMES: Final = {"since": "created_at__gte", "until": "created_at__lte"}
_KEYS: Final[dict[str, Callable[[str], Q]]] = {
    "signal": _text("message__signal"),
    "receiver": _text("receiver"),
    "state": _state,
    "queue": _queue,
    "subject": _subject,
    "error": _error,
    "message": _id("message_id"),
    "id": _id("id"),
    "worker": _text("worker"),
    "attempts": _attempts,
    "group": _text("error_group"),
    "root": _root,
    "release": _release,
}

"""Ask ``SIGNALBUS["ORIGIN"]`` who sends: the ids of a request and a user, which travel in the header for people to see.

A send calls `capture_origin`, in the sender's thread (decision 0051). Nothing of it is restored around a delivery.
"""

from __future__ import annotations

import logging
import math
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.core.signals import setting_changed
from django.db import DatabaseError
from django.utils.module_loading import import_string

from signalbus import conf
from signalbus.carriers.carrying import NOTHING
from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger: Final[logging.Logger] = logging.getLogger("signalbus")

SETTING: Final = 'SIGNALBUS["ORIGIN"]'
MOST: Final = 10  # values of one origin
LONGEST: Final = 200  # characters of a key or a value


@cache
def origin_function() -> Callable[[], Any] | None:
    """Return the function of the setting; None if it is not set.

    Raises:
        ConfigurationError: it cannot be imported, or called.
    """
    found = conf.get().ORIGIN
    if isinstance(found, str):
        try:
            found = import_string(found)
        except ImportError as error:
            raise ConfigurationError(f"{SETTING} is {found!r}, which cannot be imported: {error}") from error
    if found is not None and not callable(found):
        raise ConfigurationError(f"{SETTING} is {found!r}, which cannot be called: give a function without arguments.")
    return found  # type: ignore[no-any-return]  # as was just looked at


def capture_origin() -> Mapping[str, Any]:
    """Return who sends here and now; nothing if the setting is not set, or its function fails: that is logged.

    Raises:
        DatabaseError: the function's own; it may have ended the sender's transaction.
    """
    function = origin_function()
    if function is None:
        return NOTHING
    try:
        found = function()
        return NOTHING if found is None else _plain(found)
    except (DatabaseError, SoftTimeLimitExceeded):
        raise
    except Exception:  # a function of the project's, and only people read what it returns: the message is sent
        logger.exception("signalbus: %s failed; what is sent now has no origin", SETTING)
        return NOTHING


def _plain(found: Any) -> dict[str, Any]:
    """Return an origin as it travels.

    Raises:
        TypeError: it is no dict of texts and plain values.
    """
    if not isinstance(found, dict) or len(found) > MOST:
        raise TypeError(f"{SETTING} returned {type(found).__name__}: return None, or a dict of {MOST} values at most")
    return {_key(key): _value(key, value) for key, value in found.items() if value is not None}


def _key(key: Any) -> str:
    if type(key) is not str:
        raise TypeError(f"{SETTING} returned the key {key!r}: the keys must be texts")
    return key[:LONGEST]


def _value(key: Any, value: Any) -> Any:
    if isinstance(value, (str, UUID)):
        return str(value)[:LONGEST]
    if type(value) in (bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    raise TypeError(
        f"{SETTING} returned a {type(value).__name__} as {key!r}: the values must be texts, numbers, bools or UUIDs"
    )


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting == "SIGNALBUS":
        origin_function.cache_clear()


setting_changed.connect(_forget)

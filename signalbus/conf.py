"""The one reader of ``settings.SIGNALBUS``: typed, checked, each key with a default that works."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from signalbus.exceptions import ConfigurationError
from signalbus.wire.signing import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``SIGNALBUS`` may hold; docs/settings.md is the table for people."""

    CELERY_APP: str | None = None  # the host's own app, as "shop.celery:app"
    QUEUE: str | None = None  # None: "signalbus" with our own app, the host's default queue with the host's app
    SIGNING_KEYS: tuple[str, ...] | None = None  # None: SECRET_KEY, then SECRET_KEY_FALLBACKS
    MAX_BYTES: int = 256 * 1024  # of one message's text
    MAX_NESTING: int = 64  # containers inside containers
    MAX_CASCADE: int = 32  # messages from the root of a cascade
    PUBLISH_TIMEOUT: float = 5.0  # seconds for the broker to answer
    CONNECT_TIMEOUT: float = 2.0  # seconds for a connection to the broker
    TIME_LIMIT: float = 300.0  # seconds for one Celery message, before its process is killed; our own app only
    BATCH_SECONDS: float = 10.0  # seconds after which a batch gives its worker back
    CONNECTION_SECONDS: float = 60.0  # that a worker keeps a connection where CONN_MAX_AGE is 0; our own app only
    SWEEP_SECONDS: float = 1.0  # seconds between two looks for what is due; 0: this process has no sweeper
    PARK_SECONDS: float = 24 * 3600.0  # how long what is unknown is kept and tried again
    KEEP_REFUSED: int = 100  # texts that were refused, kept one by one; the rest are counted
    KEEP_SECONDS: float = 7 * 24 * 3600.0  # how long `purge` keeps what has ended well
    TRACEBACK_CHARS: int = 8000  # of a traceback, its end
    TEST_MODE: str | None = None  # in a test run's settings: one of TEST_MODES

    def keys(self) -> tuple[str, ...]:
        """Return the signing keys: the first signs, each verifies."""
        if self.SIGNING_KEYS is not None:
            return self.SIGNING_KEYS
        return (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)


TEST_MODES = ("muted", "immediate")  # as the functions of signalbus.testing
WORDS = {float: "a number", int: "a whole number", str: "a text"}


def _checked(name: str, value: Any, expected: Any) -> Any:
    if name == "SIGNING_KEYS" and value is not None:
        if isinstance(value, (list, tuple)) and value and all(isinstance(key, str) and key for key in value):
            return tuple(value)
        raise ConfigurationError('SIGNALBUS["SIGNING_KEYS"] must be a list of texts, the one that signs first.')
    allowed = get_args(expected) or (expected,)
    if value is None and NoneType in allowed:
        return None
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, tuple(allowed)) or isinstance(value, bool):
        kinds = " or ".join("None" if kind is NoneType else WORDS[kind] for kind in allowed)
        raise ConfigurationError(
            f'SIGNALBUS["{name}"] is {value!r}, of type {type(value).__name__}; it must be {kinds}.'
        )
    if isinstance(value, (int, float)) and not 0 <= value < math.inf:
        raise ConfigurationError(f'SIGNALBUS["{name}"] is {value!r}; it must be a number from 0 up.')
    if name == "TEST_MODE" and value not in TEST_MODES:
        raise ConfigurationError(f'SIGNALBUS["TEST_MODE"] is {value!r}; it must be "muted", "immediate" or None.')
    if value == "":
        raise ConfigurationError(f'SIGNALBUS["{name}"] is empty; leave it out for the default.')
    return value


@cache
def get() -> Settings:
    """Read the settings, once.

    Returns:
        The settings, checked.

    Raises:
        ConfigurationError: an unknown key, or a value of the wrong type.
    """
    given = getattr(django_settings, "SIGNALBUS", {})
    if not isinstance(given, dict):
        raise ConfigurationError("SIGNALBUS must be a dict of settings; docs/settings.md lists its keys.")
    hints = get_type_hints(Settings)
    names = [field.name for field in fields(Settings)]
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(str(name).upper(), names, n=1)
            cure = f'did you mean "{close[0]}"?' if close else f"the keys are {', '.join(names)}."
            raise ConfigurationError(f'SIGNALBUS["{name}"] is not a setting: {cure}')
    return Settings(**{name: _checked(name, value, hints[name]) for name, value in given.items()})


@cache
def signer() -> Signer:
    """Return the signer for the settings' keys and size limit."""
    return Signer(get().keys(), get().MAX_BYTES)


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting in {"SIGNALBUS", "SECRET_KEY", "SECRET_KEY_FALLBACKS"}:
        get.cache_clear()
        signer.cache_clear()


setting_changed.connect(_forget)

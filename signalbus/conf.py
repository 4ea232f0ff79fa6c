"""Read ``settings.SIGNALBUS``: typed, checked, each key with a default that works.

All other modules call `get()`; the system checks report what it refuses. The signers of the settings' keys are made
here too.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from signalbus.core.suggestions import RETRY_ALIASES
from signalbus.exceptions import ConfigurationError
from signalbus.retry import Retry
from signalbus.wire.signing import Signer

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_RETRY = Retry()
RETRY_KEYS = tuple(field.name for field in fields(Retry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The keys of ``SIGNALBUS`` with their defaults; docs/settings.md is the table for people."""

    CELERY_APP: str | None = None  # the host's own app, as "shop.celery:app"
    QUEUE: str | None = None  # None: "signalbus" with our own app, the host's default queue with the host's app
    # Of receivers that say nothing themselves, as QUEUE.
    RETRY: Retry = DEFAULT_RETRY  # or a dict of its arguments
    ATOMIC: bool = True
    TIMEOUT: float | None = None  # seconds for one run
    CLAIM: bool | None = None  # whether workers claim messages from Redis; None: those of our own app do
    SIGNING_KEYS: tuple[str, ...] | None = None  # None: SECRET_KEY, then SECRET_KEY_FALLBACKS
    CARRY: tuple[Any, ...] = ()  # carriers of context from the sender to deliveries: signalbus.carriers
    ACCESS: Any = None  # a function of a user and a permission, or its dotted path, that decides in place of has_perm()
    ORIGIN: Any = None  # a function, or its dotted path, that returns the ids of the request and user that send
    SKIP_APPS: tuple[str, ...] = ()  # apps, by name or label, whose signals and receivers are not looked for
    MAX_BYTES: int = 256 * 1024  # of one message's text
    MAX_NESTING: int = 64  # containers inside containers
    MAX_CASCADE: int = 32  # messages from the root of a cascade
    PUBLISH_TIMEOUT: float = 5.0  # seconds for the broker to answer
    CONNECT_TIMEOUT: float = 2.0  # seconds for a connection to the broker
    TIME_LIMIT: float = 300.0  # seconds for one Celery message, then its process is killed (our own app only); never 0
    BATCH_SECONDS: float = 10.0  # seconds after which a batch gives its worker back
    SHARE_COMMITS: bool = True  # among the brief deliveries of one Celery message
    SLOW_SECONDS: float = 5.0  # that an atomic receiver may run without a warning; 0: none
    CONNECTION_SECONDS: float = 60.0  # that a worker keeps a connection where CONN_MAX_AGE is 0; our own app only
    SWEEP_SECONDS: float = 1.0  # seconds between two looks for due deliveries; 0: this process has no sweeper
    PARK_SECONDS: float = 24 * 3600.0  # how long unknown messages are parked and tried again
    KEEP_REFUSED: int = 100  # texts that were refused, kept one by one; the rest are counted
    KEEP_SECONDS: float = 24 * 3600.0  # how long done, skipped and discarded deliveries are kept
    KEEP: dict[str, float] | None = None  # other ages of KEPT, in seconds; None: for ever
    REDACT: tuple[str, ...] = ()  # keys of payloads whose values are hidden from people, beside those that Django hides
    RELEASE: str | None = None  # of the project's code; None: SENTRY_RELEASE, GIT_SHA or none, as the environment says
    TRACEBACK_CHARS: int = 8000  # of a traceback, its end
    METRICS_TOKEN: str | None = None  # that Prometheus sends to signalbus.telemetry.views.metrics; None: log in
    OTEL: bool = False  # whether spans are made with OpenTelemetry
    SENTRY: bool = False  # whether spans and transactions are made with Sentry
    OTEL_SPANS: tuple[str, ...] = ("send", "process")  # the kinds of spans that are made
    TRACE_PARENT: bool = False  # whether a first attempt is a child of the span of its send(), not linked to it
    TRACE_BAGGAGE: tuple[str, ...] = ()  # keys of OpenTelemetry's baggage that messages take along
    ALERTS: dict[str, Any] | None = None  # who is told of alerts, and when they are raised: ALERT_KEYS
    HEARTBEAT_URL: str | None = None  # that is requested each half minute while sweepers work and no queue is stuck
    TEST_MODE: str | None = None  # in a test run's settings: one of TEST_MODES

    def age(self, what: str) -> float:
        """Return how long something is kept, in seconds; infinite if it is never deleted.

        Args:
            what: one of `KEPT`.
        """
        return (self.KEEP or {}).get(what, AGES.get(what, self.KEEP_SECONDS))

    def ages(self) -> dict[str, float]:
        """Return how long deliveries that have ended are kept, by state; a state that is missing is kept for ever."""
        return {state: age for state in ENDED if (age := self.age(state)) < math.inf}

    def alerts(self) -> dict[str, Any]:
        """Return the settings of alerts, by `ALERT_KEYS`."""
        return ALERT_KEYS | (self.ALERTS or {})

    def keys(self) -> tuple[str, ...]:
        """Return the signing keys: the first signs, each verifies."""
        if self.SIGNING_KEYS is not None:
            return self.SIGNING_KEYS
        return (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)


DAY = 24 * 3600.0  # seconds
ENDED = ("done", "skipped", "discarded", "dead")  # states of deliveries
AGES = {"dead": math.inf, "counts": 30 * DAY, "operations": 365 * DAY, "alerts": 30 * DAY}  # without KEEP
KEPT = (*ENDED, "counts", "operations", "alerts")
# The keys of ALERTS with their defaults. Ages are in seconds; "base_url" is of the site, as "https://shop.example".
ALERT_KEYS: dict[str, Any] = {
    "mail_admins": False,
    "webhook": "",
    "errors": True,  # whether notices have the texts of errors
    "base_url": "",
    "overdue": 300.0,
    "rollout": 600.0,
}
FUNCTIONS = {"ACCESS": "of a user and a permission", "ORIGIN": "without arguments"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SPAN_KINDS = ("create", "send", "process")  # of OpenTelemetry
TEST_MODES = ("muted", "immediate")  # as the functions of signalbus.testing
WORDS: dict[type, str] = {float: "a number", int: "a whole number", str: "a text", bool: "True or False"}
# The items of the settings that are lists: their description, and their type.
LISTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "SIGNING_KEYS": ("texts, the one that signs first", lambda key: isinstance(key, str) and key != ""),
    "REDACT": ("keys of payloads", lambda key: isinstance(key, str) and key != ""),
    "TRACE_BAGGAGE": ("keys of baggage", lambda key: isinstance(key, str) and key != ""),
    "OTEL_SPANS": ("the kinds of spans: create, send and process", lambda kind: kind in SPAN_KINDS),
    "SKIP_APPS": ("apps, by their names or labels", lambda app: isinstance(app, str)),
    "CARRY": (
        'carriers: dotted paths, as "signalbus.carriers.Language", or objects',
        lambda carrier: carrier is not None and carrier != "" and not isinstance(carrier, (bytes, int, float)),
    ),
}


def _checked(name: str, value: Any, expected: Any) -> Any:
    if expected is Retry:
        return _retry(name, value)
    if name == "KEEP" and value is not None:
        return _ages(value)
    if name == "ALERTS" and value is not None:
        return _alerts(value)
    if name == "HEARTBEAT_URL" and value is not None:
        return _address('SIGNALBUS["HEARTBEAT_URL"]', value)
    if name in FUNCTIONS:
        return _function(name, value)
    if name in LISTS and not (value is None and name == "SIGNING_KEYS"):
        return _listed(name, value)
    allowed = get_args(expected) or (expected,)
    if value is None and NoneType in allowed:
        return None
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, tuple(allowed)) or isinstance(value, bool) is not (bool in allowed):
        kinds = " or ".join("None" if kind is NoneType else WORDS[kind] for kind in allowed)
        raise ConfigurationError(
            f'SIGNALBUS["{name}"] is {value!r}, of type {type(value).__name__}; it must be {kinds}.'
        )
    _reject_meaningless(name, value)
    return value


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    what, accepts = LISTS[name]
    if isinstance(
        value,
        (list, tuple, set, frozenset)
        if name in {"SKIP_APPS", "REDACT", "TRACE_BAGGAGE", "OTEL_SPANS"}
        else (list, tuple),
    ):
        listed = tuple(value)
        if all(map(accepts, listed)) and (listed or name != "SIGNING_KEYS"):
            return listed
    raise ConfigurationError(f'SIGNALBUS["{name}"] must be a list of {what}.')


def _reject_meaningless(name: str, value: object) -> None:
    if isinstance(value, (int, float)) and not 0 <= value < math.inf:
        raise ConfigurationError(f'SIGNALBUS["{name}"] is {value!r}; it must be a number from 0 up.')
    if name == "TEST_MODE" and value not in TEST_MODES:
        raise ConfigurationError(f'SIGNALBUS["TEST_MODE"] is {value!r}; it must be "muted", "immediate" or None.')
    if name == "TIMEOUT" and value == 0:
        raise ConfigurationError('SIGNALBUS["TIMEOUT"] is 0; it must be a number above 0, or None for no limit.')
    if name == "TIME_LIMIT" and not value:
        raise ConfigurationError(
            'SIGNALBUS["TIME_LIMIT"] must be more than 0: after three times that, what a lost worker had is given out '
            "again. Set it to more than your longest receiver takes; to never end one, set CELERY_TASK_TIME_LIMIT = "
            "None beside it."
        )
    if value == "":
        raise ConfigurationError(f'SIGNALBUS["{name}"] is empty; leave it out for the default.')


def _ages(value: Any) -> dict[str, float]:
    takes = f'SIGNALBUS["KEEP"] is a dict of seconds, or None for ever, by {", ".join(KEPT)}'
    if not isinstance(value, dict):
        raise ConfigurationError(f"{takes}; it is {value!r}.")
    for what, age in value.items():
        is_number = isinstance(age, (int, float)) and not isinstance(age, bool) and 0 <= age < math.inf
        if what not in KEPT or not (age is None or is_number):
            raise ConfigurationError(f"{takes}; {what!r}: {age!r} is not.")
    return {what: math.inf if age is None else float(age) for what, age in value.items()}


def _alerts(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f'SIGNALBUS["ALERTS"] is a dict with {", ".join(ALERT_KEYS)}; it is {value!r}.')
    for key, given in value.items():
        where = f'SIGNALBUS["ALERTS"][{key!r}]'
        if key not in ALERT_KEYS:
            raise ConfigurationError(f"{where} is not a setting: {_meant_of(key, list(ALERT_KEYS))}")
        if key in {"webhook", "base_url"}:
            _address(where, given)
        elif key in {"mail_admins", "errors"} and not isinstance(given, bool):
            raise ConfigurationError(f"{where} is {given!r}; it must be True or False.")
        elif key in {"overdue", "rollout"} and not _is_age(given):
            raise ConfigurationError(f"{where} is {given!r}; it must be a number of seconds above 0.")
    return dict(value)


def _is_age(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool) and 0 < given < math.inf


def _address(where: str, given: Any) -> str:
    """Check an address that is called: encrypted, unless it is of this machine."""
    if isinstance(given, str) and given.isprintable():
        parts = urlsplit(given)
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
            return given
    raise ConfigurationError(f"{where} is {given!r}; it must be an address that begins with https://.")


def _function(name: str, value: Any) -> Any:
    if value is None or callable(value) or (isinstance(value, str) and value):
        return value
    raise ConfigurationError(
        f'SIGNALBUS["{name}"] is {value!r}; it must be a function {FUNCTIONS[name]}, or its dotted path.'
    )


def _retry(name: str, value: Any) -> Retry:
    if isinstance(value, Retry):
        return value
    takes = f"a signalbus.Retry, or a dict of what that takes: {', '.join(RETRY_KEYS)}"
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f'SIGNALBUS["{name}"] is {value!r}; it must be {takes}.')
    try:
        return Retry(**value)
    except ConfigurationError as error:
        raise ConfigurationError(f'SIGNALBUS["{name}"]: {error}') from error
    except TypeError as error:
        raise ConfigurationError(f'SIGNALBUS["{name}"]: {error} It must be {takes}.') from error


def _meant(name: object, value: object, names: list[str]) -> str:
    """Return a hint at the setting that was probably meant by one that does not exist."""
    if not isinstance(name, str):
        return f"the keys are {', '.join(names)}."
    if name.startswith("CELERY_") or hasattr(django_settings, name):
        return f"it stands beside SIGNALBUS in the settings, as {name} = {value!r}."
    option = name.lower()
    if option in RETRY_ALIASES or option in RETRY_KEYS:
        meant = RETRY_ALIASES.get(option, f"{option}={{value!r}}").format(value=value)
        return f'did you mean "RETRY": Retry({meant})?'
    return _meant_of(name.upper(), names)


def _meant_of(name: object, names: list[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1)
    return f'did you mean "{close[0]}"?' if close else f"the keys are {', '.join(names)}."


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
            raise ConfigurationError(f'SIGNALBUS["{name}"] is not a setting: {_meant(name, given[name], names)}')
    return Settings(**{name: _checked(name, value, hints[name]) for name, value in given.items()})


@cache
def release() -> str:
    """Return the release of the project's code that this process runs; empty if no setting names it."""
    return get().RELEASE or os.environ.get("SENTRY_RELEASE") or os.environ.get("GIT_SHA") or ""


@cache
def signer() -> Signer:
    """Return the signer for the settings' keys and size limit."""
    return Signer(get().keys(), get().MAX_BYTES)


@cache
def task_signer() -> Signer:
    """Return the signer of a host's tasks: with keys of its own, so that no text of one kind passes for the other."""
    keys = get().keys()
    return Signer([f"task {key}" for key in keys], sys.maxsize)


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting in {"SIGNALBUS", "SECRET_KEY", "SECRET_KEY_FALLBACKS"}:
        get.cache_clear()
        release.cache_clear()
        signer.cache_clear()
        task_signer.cache_clear()


setting_changed.connect(_forget)

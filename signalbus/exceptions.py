"""Define every error that signalbus raises: one shallow tree, each error with its evidence and its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.db.utils import DatabaseError

if TYPE_CHECKING:
    from datetime import timedelta


class SignalBusError(Exception):
    """The base class of all errors of signalbus."""


class ConfigurationError(SignalBusError, ImproperlyConfigured):
    """A setting, a signal's name or a receiver cannot work as declared; the message says what to change."""


class MissingTables(ConfigurationError, DatabaseError):
    """The tables of signalbus do not exist in the database, or are those of an earlier version; nothing was sent.

    Callers that handle a ``DatabaseError`` handle this one as well.
    """


class PayloadError(SignalBusError):
    """A payload cannot travel; nothing was sent.

    Args:
        reason: the problem and its remedy.
        path: where in the payload, as in ``context.user.lock``; empty for the payload as a whole.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason: str = reason
        self.path: str = path

    def inside(self, step: str) -> None:
        """Put a step in front of the path, as the error leaves the container that it was raised in.

        Args:
            step: a name, or an index as in ``[3]``.
        """
        self.path = f"{step}.{self.path}" if self.path and not self.path.startswith("[") else step + self.path
        self.args: tuple[object, ...] = (f"{self.path}: {self.reason}",)


class DueError(SignalBusError, ValueError):
    """An invalid time, for example a naive one although ``USE_TZ`` is on; nothing was sent."""


class CascadeError(SignalBusError):
    """Receivers sent signals whose receivers sent signals again, and so on, deeper than the limit.

    Args:
        path: the names of the signals, from the root to the one refused.
        limit: how many messages a cascade may hold (``SIGNALBUS["MAX_CASCADE"]``).
    """

    def __init__(self, path: tuple[str, ...], limit: int) -> None:
        super().__init__(
            f"A cascade of more than {limit} messages: {' > '.join(path)}. Break the loop (a receiver that saves what "
            'it was told of sends again), or raise SIGNALBUS["MAX_CASCADE"].'
        )
        self.path = path
        self.limit = limit


class MissingRow(SignalBusError):
    """A message refers to a row that does not exist any more, or that its model's base manager hides.

    Args:
        what: the references that found nothing, as ``label pk`` texts.
        hidden: the labels of those models that name a base manager of their own, which may hide rows.
    """

    def __init__(self, what: tuple[str, ...], hidden: tuple[str, ...] = ()) -> None:
        rows = ", ".join(what)
        if hidden:
            found = (
                f"not found: {rows}. Deleted since the signal was sent, or hidden by the base manager of "
                f"{', '.join(hidden)} (Meta.base_manager_name, its own or an inherited one), through which a worker "
                "loads rows."
            )
        else:
            found = f"gone since the signal was sent: {rows}."
        super().__init__(
            f'{found} For a receiver that is to run all the same, say on_missing="snapshot" where it is connected, or '
            "send signalbus.Snapshot(instance)."
        )
        self.what = what
        self.hidden = hidden


class UnknownClass(SignalBusError):
    """A verified message names a model, database, class or function that this process does not have, or may not import.

    Args:
        name: the name as the message gives it.
        why: the reason.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


class UnknownPayloadVersion(SignalBusError):
    """A payload of a newer version than this code declares, or of an older one that no upcast leads from."""


class TextError(SignalBusError):
    """A text from the queue that cannot be opened; never parsed further, never run."""


class Garbage(TextError):
    """Not one of our texts at all, or a body that breaks the format."""


class Forged(TextError):
    """The text names one of our keys, and its signature does not fit."""


class TooLarge(TextError):
    """The text is over the limit of ``SIGNALBUS["MAX_BYTES"]``, or nested over ``SIGNALBUS["MAX_NESTING"]``."""


class UnknownKey(TextError):
    """The text is signed with a key that this process does not hold (yet, or any more).

    Args:
        key_id: the public name of that key.
    """

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"signed with key {key_id}, which this process does not hold: add it to SECRET_KEY_FALLBACKS (or "
            'SIGNALBUS["SIGNING_KEYS"]) here, or roll this worker out'
        )
        self.key_id = key_id


class UnknownVersion(TextError):
    """A correctly signed text of a newer version than this code reads.

    Args:
        version: the version as the body gives it.
        body: the verified body.
    """

    def __init__(self, version: str, body: str) -> None:
        super().__init__(f"version {version} is newer than this worker reads: roll this worker out")
        self.version = version
        self.body = body


class RetryLater(SignalBusError):
    """Raised by a receiver to be run again; it counts as an attempt.

    Args:
        delay: seconds from now, or a timedelta.
    """

    def __init__(self, delay: float | timedelta) -> None:
        seconds = delay if isinstance(delay, (int, float)) else delay.total_seconds()
        super().__init__(f"asked to be run again in {seconds:g} s")
        self.delay: float = float(seconds)


class Reject(SignalBusError):
    """Raised by a receiver that will never succeed: the delivery is dead at once.

    Args:
        reason: a text for the person who reads the list of failures.
    """

    def __init__(self, reason: str = "rejected by the receiver") -> None:
        super().__init__(reason)
        self.reason = reason

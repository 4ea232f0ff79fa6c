"""The registry of this process: its signals by name, and the receivers that a worker can find by their ids.

Signals add themselves when they are made (`connecting/naming`); workers look signals up by the name in a message.
"""

from __future__ import annotations

import sys
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from django.apps import apps

from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from signalbus.registration.policy import Policy
    from signalbus.retry import Retry


MAX_NAME, MAX_ID, MAX_QUEUE = 255, 512, 255  # characters, as the ledger's columns hold


class Defaults(Protocol):
    """The options of receivers that do not give them: those of the project's settings."""

    @property
    def RETRY(self) -> Retry:  # noqa: N802 - a setting
        """When to try again."""

    @property
    def ATOMIC(self) -> bool:  # noqa: N802 - a setting
        """Run in a transaction."""

    @property
    def TIMEOUT(self) -> float | None:  # noqa: N802 - a setting
        """Seconds for one run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Receiver:
    """A connected function with a stable id and a policy.

    Args:
        id: the id by which messages name it.
        function: returns the function, or None once it is gone (a weak reference, as Django keeps it).
        sender: the name of the sender it was connected for, or None for any.
        place: where it was defined, for error messages.
        source: the same, whatever its module was imported as.
        policy: what was said when it was connected.
        defaults: returns what holds otherwise; not to be called before there are settings.
        is_async: it is an ``async def``.
    """

    id: str
    function: Callable[[], Callable[..., Any] | None]
    sender: str | None
    place: str
    source: str
    policy: Policy
    defaults: Callable[[], Defaults]
    is_async: bool

    @property
    def retry(self) -> Retry:
        """When to try again."""
        return self.defaults().RETRY if self.policy.retry is None else self.policy.retry

    @property
    def queue(self) -> str | None:
        """The Celery queue it is delivered through, or None for the default one."""
        return self.policy.queue

    @property
    def atomic(self) -> bool:
        """Whether it runs in a transaction, together with its receipt."""
        return self.defaults().ATOMIC if self.policy.atomic is None else self.policy.atomic

    @property
    def timeout(self) -> float | None:
        """Seconds for one run, or None."""
        return self.defaults().TIMEOUT if self.policy.timeout is None else self.policy.timeout


class NamedSignal(Protocol):
    """The part of a signal that the registry uses."""

    was: tuple[str, ...]
    place: str
    site: str
    module: str

    @property
    def is_leftover(self) -> bool:
        """Whether the module that made it has been loaded again."""

    @property
    def name(self) -> str:
        """The stable name."""

    def known_name(self) -> str | None:
        """The name, or None while there is none."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two signals, or two receivers of a signal, with one id.

    Args:
        what: "signal" or "receiver".
        id: the id they share.
        places: where both stand.
    """

    what: str
    id: str
    places: tuple[str, str]

    def __str__(self) -> str:
        return (
            f"Two {self.what}s are called {self.id!r}: one at {self.places[0]}, one at {self.places[1]}. A message "
            "could not tell them apart: rename one, or give one "
            f"{'a name' if self.what == 'signal' else 'a dispatch_uid'} of its own."
        )


def is_name(value: object, most: int) -> TypeGuard[str]:
    """Whether a text can be kept in a row, and shown in a line of a log."""
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


class Registry:
    """The signals of this process. It keeps none of them alive."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._signals: weakref.WeakValueDictionary[int, Any] = (
            weakref.WeakValueDictionary()
        )  # in the order of their making
        self._by_name: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._unindexed = False
        self.complete: bool = False  # whether every app's receivers have been looked for
        self.size: int = 0  # how many there ever were: who saw no rival among so many need not look again

    def add(self, signal: NamedSignal) -> None:
        """Take in a new signal; its name is asked for later, when the apps are loaded."""
        with self._lock:
            self.size += 1
            self._signals[self.size] = signal
            self._unindexed = True

    def renamed(self) -> None:
        """Take note that a signal has found its name."""
        self._unindexed = True

    def __iter__(self) -> Iterator[Any]:
        with self._lock:
            return iter(list(self._signals.values()))

    def signal(self, name: str) -> Any | None:
        """Find a signal.

        Args:
            name: its name, or one it had before (``was``).

        Returns:
            The signal, or None if this process does not know it.
        """
        found = self._by_name.get(name)
        if found is None and self._unindexed:
            # Only a new signal makes this worth repeating: a hostile name must not cost a walk over all of them.
            self._index()
            found = self._by_name.get(name)
        return found

    def _index(self) -> None:
        with self._lock:
            # Former names first, so that a name in use today wins over one that was given up; then the newest wins, so
            # that a module that was loaded again replaces its signals.
            named = [(signal, signal.known_name()) for signal in self]
            self._unindexed = not apps.apps_ready  # until then some have none
            for signal, name in named:
                if name is not None:
                    self._by_name.update(dict.fromkeys(signal.was, signal))
            for signal, name in named:
                if name is not None:
                    self._by_name[name] = signal

    def rival(self, signal: NamedSignal, name: str) -> Conflict | None:
        """Look for another signal of the same name.

        Args:
            signal: the one whose name it is.
            name: its name.

        Returns:
            The conflict, or None. A module that was loaded again replaces its signals: that is none.
        """
        for other in self:
            if other is signal or other.site == signal.site or other.known_name() != name:
                continue
            if other.module != signal.module or not (other.is_leftover or signal.is_leftover):
                alike = other.place == signal.place
                first, second = sorted([other.site, signal.site] if alike else [other.place, signal.place])
                return Conflict("signal", name, (first, second))
        return None

    def queues(self) -> list[str]:
        """Return the queues that receivers ask for, sorted, each once."""
        return sorted({entry.queue for signal in self for entry in signal.entries() if entry.queue is not None})


registry: Registry = Registry()


def app_label_of(module: str) -> str | None:
    """Return the label of the installed app that a module belongs to.

    Args:
        module: a dotted module name.

    Returns:
        The label, or None for a module outside every app.

    Raises:
        ConfigurationError: the apps are not loaded yet, so nobody can say.
    """
    if not apps.apps_ready:
        raise ConfigurationError(
            "A signal's name follows from the app it stands in, and Django's apps are not loaded yet: call "
            "django.setup() first, or give the signal a name."
        )
    config = apps.get_containing_app_config(module)
    return None if config is None else str(config.label)


def variable_of(module: str, value: object) -> str | None:
    """Find the module-level variable that holds an object.

    Args:
        module: the dotted module name.
        value: the object.

    Returns:
        The variable's name (the first where there are several), or None.
    """
    namespace = vars(sys.modules.get(module, object))
    return next((name for name, held in list(namespace.items()) if held is value), None)

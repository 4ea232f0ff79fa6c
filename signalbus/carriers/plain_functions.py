"""Carry what a plain function of ``SIGNALBUS["CARRY"]`` returns; a receiver asks `carried` for it.

`carrying` makes a `CarriedFunction` of each function in the setting.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_values: ContextVar[Mapping[str, Any]] = ContextVar("signalbus_carried", default=_NOTHING)


def carried(name: str) -> Any:
    """Return what a function of ``SIGNALBUS["CARRY"]`` returned at the ``send()`` of the running delivery.

    Args:
        name: the function's name.

    Returns:
        The value; None outside of a delivery, and if nothing was carried.
    """
    return _values.get().get(name)


class CarriedFunction:
    """Carries what a function returns, under the function's name.

    Args:
        function: takes no arguments; returns a value of JSON, or None.

    Raises:
        ConfigurationError: the function has no name of its own.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            raise ConfigurationError(
                f'SIGNALBUS["CARRY"]: {function!r} needs a name under which its value travels: define it with def.'
            )
        self.name: str = name
        self._function = function

    def capture(self) -> Any:
        """Return what the function returns; in a receiver for which that is None, what came with its message."""
        found = self._function()
        return carried(self.name) if found is None else found

    @contextmanager
    def restore(self, value: Any, /) -> Iterator[None]:
        """Let `carried` return the value."""
        token = _values.set({**_values.get(), self.name: value})
        try:
            yield
        finally:
            _values.reset(token)

"""Call a function in the context that its message carries, and later the ``on_commit`` callbacks that it leaves.

`invocation` calls it for messages with a context (decision 0038). The carriers restore the context: see `carriers/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from signalbus.carriers import carrying
from signalbus.compat.django_internals import callbacks_of, opened_connections
from signalbus.transactions import CommitCallback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class RestoredCallback:
    """A callback of ``on_commit`` that is called in the context of the message whose receiver registered it.

    Args:
        function: the callback.
        context: as the message carries it.
    """

    def __init__(self, function: Callable[[], object], context: Mapping[str, Any]) -> None:
        self._function = function
        self._context = context
        self.__qualname__ = getattr(function, "__qualname__", type(self).__qualname__)

    def __call__(self) -> None:
        """Call it."""
        carrying.call_restored(self._context, self._function)


def call_in_context(context: Mapping[str, Any], function: Callable[..., object], *args: Any) -> None:
    """Call a function, and later the ``on_commit`` callbacks that it registers, in the context of a message.

    Args:
        context: as the message carries it.
        function: the function.
        args: its arguments.
    """
    before = {id(callback) for connection in opened_connections() for _, callback, _ in callbacks_of(connection)}
    carrying.call_restored(context, function, *args)
    for connection in opened_connections():
        entries = callbacks_of(connection)
        for index, (savepoints, callback, robust) in enumerate(entries):
            if id(callback) not in before and not isinstance(callback, CommitCallback):
                entries[index] = (savepoints, RestoredCallback(callback, context), robust)

"""Run a coroutine function in a given event loop; asgiref's ``async_to_sync`` chooses the loop itself.

`receiving/process/event_loop` uses it: all async receivers of a process run in one loop.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from asgiref.sync import AsyncToSync, SyncToAsync

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run a coroutine function in an event loop that runs on another thread, and wait for its end.

    Functions that the coroutine gives to ``sync_to_async`` run on this thread, which waits.

    asgiref keeps in ``SyncToAsync.threadlocal`` the loop to which a thread belongs, and ``async_to_sync`` uses that
    loop. This function sets it for the time of the call. If asgiref did not read it any more, each call would make a
    loop of its own.

    Args:
        loop: the loop.
        function: the coroutine function.
        args: its arguments.
    """
    noted: Any = SyncToAsync.threadlocal
    before = vars(noted).copy()
    noted.main_event_loop, noted.main_event_loop_pid = loop, os.getpid()
    try:
        AsyncToSync(function)(*args)
    finally:
        vars(noted).clear()
        vars(noted).update(before)

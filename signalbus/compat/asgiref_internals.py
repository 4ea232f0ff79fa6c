"""Call a coroutine in a given event loop, which asgiref's ``async_to_sync`` does only in a loop of its own choice.

`receiving/process/event_loop` uses it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from asgiref.sync import AsyncToSync, SyncToAsync

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Call a coroutine function in a running loop of another thread, and wait for its end.

    What it hands to ``sync_to_async`` runs on this thread. Uses ``SyncToAsync.threadlocal``, where asgiref notes the
    loop below which a thread works. Were it ignored, each call would have a loop of its own.

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

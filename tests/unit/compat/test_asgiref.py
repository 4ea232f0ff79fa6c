"""asgiref still finds the event loop above a worker thread in the attribute that the library sets."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from signalbus.compat.asgiref_internals import call_on


def test_a_coroutine_runs_in_the_given_loop():
    """A coroutine runs in the given loop, not in one that asgiref makes for the call."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    found: list[Any] = []

    async def find() -> None:
        found.append(asyncio.get_running_loop())

    try:
        call_on(loop, find)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

    assert found == [loop]

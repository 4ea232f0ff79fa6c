"""Keep the event loop of ``async def`` receivers: one for each thread that runs receivers, kept between runs.

`invoking/runner` calls `run_in_loop`. A client that a module keeps (of redis.asyncio, httpx, asyncpg, a channel
layer) belongs to the loop in which it was first used. The loop runs on a thread of its own. What a receiver hands to
``sync_to_async``, as Django's ORM does with each query, comes back to the thread that waits for the receiver, and so
to the connection of its transaction.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from django.db import connections

from signalbus.compat.asgiref_internals import call_on
from signalbus.context import current

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

logger: logging.Logger = logging.getLogger("signalbus")

CANCEL_SECONDS: Final = 5.0  # for tasks that were cancelled to end; a loop whose tasks go on is given up

_local = threading.local()  # loop: this thread's EventLoop


class EventLoop:
    """A running event loop, for one thread that calls coroutines and waits for them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="signalbus-event-loop", daemon=True)
        started = threading.Event()
        self._loop.call_soon(started.set)
        self._thread.start()
        started.wait()
        weakref.finalize(self, _stop, self._loop, self._thread)

    @property
    def is_usable(self) -> bool:
        """Whether its thread still runs; in a forked child it does not."""
        return self._process == os.getpid() and self._thread.is_alive()

    def run(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Call a coroutine function in the loop, and wait for its end.

        Args:
            function: the coroutine function; tasks that it leaves behind are cancelled.
            args: its arguments.

        Raises:
            BaseException: what the coroutine raised, or what interrupted the wait, as a time limit does.
        """
        ended = threading.Event()
        try:
            call_on(self._loop, _until_all_ended, ended, function, *args)
        finally:
            if not ended.is_set():  # the wait was interrupted, and the coroutine goes on
                self._cancel()

    def _cancel(self) -> None:
        """Cancel what runs in the loop; give the loop up if that does not end."""
        cancelling = asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop)
        try:
            cancelling.result(CANCEL_SECONDS + 1)
        except TimeoutError:
            logger.warning("signalbus gives up an event loop that is blocked: the next async receiver gets a new one")
            self._process = 0


class Threads(ThreadPoolExecutor):
    """The threads of one run, for what is not to run on the waiting thread; a call closes the connections it opened."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function in one of the threads."""
        return super().submit(_call_and_close, fn, *args, **kwargs)


def _call_and_close(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    finally:
        connections.close_all()


async def _until_all_ended(
    ended: threading.Event, function: Callable[..., Coroutine[Any, Any, None]], *args: Any
) -> None:
    threads = Threads(thread_name_prefix="signalbus-async")  # starts none until one is asked for
    asyncio.get_running_loop().set_default_executor(threads)
    try:
        await function(*args)
    finally:
        names = await _cancel_others()
        threads.shutdown()  # waits for what runs in them, as the end of asyncio.run() does
        ended.set()
        if names:
            delivery = current()
            logger.warning(
                "signalbus cancelled %d tasks that the receiver %s left behind: %s. Await them, or start them outside.",
                len(names),
                delivery.receiver if delivery else "(none)",
                ", ".join(names),
            )


async def _cancel_others() -> list[str]:
    """Cancel all other tasks of this loop, wait for their end, and return their names."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if not others:
        return []
    for task in others:
        task.cancel()
    done, pending = await asyncio.wait(others, timeout=CANCEL_SECONDS)
    for task in done:
        if not task.cancelled():
            task.exception()  # taken note of: asyncio would report it as never retrieved
    for task in pending:
        logger.warning("signalbus: the task %r does not end, although it was cancelled", task.get_name())
    return sorted(f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in others)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue  # of a task; the code that awaits it gets it, but only in a loop that goes on
            else:
                return
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread.is_alive() and not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(1.0)


def run_in_loop(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Call a coroutine function in this thread's loop, and wait for its end; as `EventLoop.run`."""
    loop: EventLoop | None = getattr(_local, "loop", None)
    if loop is None or not loop.is_usable:
        loop = _local.loop = EventLoop()
    loop.run(function, *args)

"""The event loop of async receivers is kept between runs, one for each thread, and cleaned after each run."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import os
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from signalbus.receiving.invoking.invocation import own_decimal_context
from signalbus.receiving.process.event_loop import run_in_loop


def run(function: Any) -> Any:
    """Run a coroutine function, and return its result."""
    results: list[Any] = []

    async def wrapper() -> None:
        results.append(await function())

    run_in_loop(wrapper)
    return results[0]


async def this_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop."""
    return asyncio.get_running_loop()


def test_runs_of_a_thread_share_a_loop():
    """A client of a module finds its loop again; another thread has another loop."""
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(run(this_loop)))
    thread.start()
    thread.join(10)

    assert run(this_loop) is run(this_loop)
    assert others[0] is not run(this_loop)


def test_sync_to_async_runs_on_the_waiting_thread():
    """The queries of an async receiver use the connection of its transaction."""

    async def where() -> int:
        return await sync_to_async(threading.get_ident)()

    assert run(where) == threading.get_ident()


def test_unfinished_tasks_are_cancelled_and_logged(caplog):
    """An unfinished task would continue during the next run, and its errors belong to no delivery."""
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("background")

    async def receiver() -> None:
        task = asyncio.create_task(background(), name="left")
        task.add_done_callback(lambda _: ended.append("done"))
        await asyncio.sleep(0)

    run(receiver)

    assert ended == ["background", "done"]
    assert "cancelled 1 tasks" in caplog.text
    assert "left (" in caplog.text


def test_an_interrupted_wait_cancels_the_coroutine():
    """A time limit in the waiting thread ends the coroutine, and the loop serves the next run."""
    ended = threading.Event()

    class TimeLimit(BaseException):
        pass

    def strike() -> None:
        raise TimeLimit

    async def receiver() -> None:
        try:
            asyncio.get_running_loop().call_soon(lambda: None)
            await sync_to_async(strike)()
        except TimeLimit:
            ended.set()
            raise

    before = run(this_loop)
    with pytest.raises(TimeLimit):
        run(receiver)

    assert ended.is_set()
    assert run(this_loop) is before


def test_a_task_that_ends_the_interpreter_does_not_end_the_loop():
    """A task's SystemExit reaches the receiver that awaits it, and the loop goes on."""

    async def receiver() -> None:
        async def leave() -> None:
            raise SystemExit(3)

        await asyncio.create_task(leave())

    before = run(this_loop)
    with pytest.raises(SystemExit):
        run(receiver)

    assert run(this_loop) is before


def test_a_forked_child_has_a_loop_of_its_own():
    """The thread of the parent's loop does not exist there."""
    run(this_loop)
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        code = 1
        try:
            code = 0 if run(this_loop) is not None else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_each_run_has_its_own_decimal_context():
    """A copied context alone would share the same object."""
    before = decimal.getcontext().prec

    def rough() -> None:
        own_decimal_context()
        decimal.getcontext().prec = 3

    contextvars.copy_context().run(rough)

    assert decimal.getcontext().prec == before != 3

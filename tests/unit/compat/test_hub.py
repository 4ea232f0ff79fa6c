"""kombu's event loop wakes when another thread has a call for it."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest
from kombu.asynchronous import Hub

from signalbus.compat import kombu_hub


def test_another_threads_call_wakes_the_loop():
    """The loop wakes at once, not at its next poll a second later."""
    loop: Any = Hub()
    kombu_hub.wake_for_threads(loop)
    called = threading.Event()
    caller = threading.Timer(0.05, lambda: loop.call_soon(called.set))
    began = time.monotonic()
    caller.start()
    while not called.is_set():
        assert time.monotonic() - began < 0.8
        loop.run_once()
    caller.join()
    loop.close()


class Loop:
    """An event loop of kombu before 5.7."""


def test_before_kombu_5_7_the_library_wakes_the_loop(monkeypatch: pytest.MonkeyPatch):
    """The wake-up is installed once, however often the worker reconnects; a call of the loop's own thread wakes
    nothing.
    """
    monkeypatch.setattr(kombu_hub, "WAKES", False)
    called: list[str] = []
    watched: list[int] = []
    loop: Any = Loop()
    loop.call_soon, loop.add_reader = called.append, lambda fileno, callback: watched.append(fileno)
    for _ in range(2):
        kombu_hub.wake_for_threads(loop)
    waking = loop.call_soon
    assert watched == [waking._reader.fileno()] * 2

    loop.call_soon("from its own")
    with pytest.raises(BlockingIOError):
        waking._reader.recv(1)
    thread = threading.Thread(target=loop.call_soon, args=("from another",))
    thread.start()
    thread.join()
    assert waking._reader.recv(10) == b"\0"
    assert called == ["from its own", "from another"]
    waking._drain()
    del loop
    gc.collect()
    assert waking._writer.fileno() == -1

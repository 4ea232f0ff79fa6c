"""Detect a running event loop, which forbids database queries on its thread, and call a function on another thread.

The modules of `sending` ask it before they encode or record (decision 0018).
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def is_running() -> bool:
    """Return whether an event loop runs on this thread; none does where ``sync_to_async`` calls."""
    # As get_running_loop(), without the error that would be raised at nearly every send().
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - asyncio lists it among what it exports


def forbid_databases() -> bool:
    """Return whether Django would refuse a query on this thread, as its ``async_unsafe`` decides."""
    return is_running() and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")


def call_away(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function on a thread of its own, in this context, and wait for it.

    Args:
        function: a function that may query a database; the connections that it opens are closed afterwards.
        args: its arguments.
        kwargs: its arguments.

    Returns:
        The function's result; its exception is raised here.
    """

    def call() -> R:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, call).result()

"""Runs one receiver and tells how it went. Knows neither Celery nor tables."""

from __future__ import annotations

import asyncio
import signal
import threading
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from asgiref.sync import async_to_sync

from signalbus.exceptions import MissingRow, TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from signalbus.retry import Retry


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Args:
        kind: "done", "skipped", "failed" (tried again after the delay) or "dead".
        error: what was raised, or None.
        delay: seconds until the next attempt, for "failed".
    """

    kind: Literal["done", "skipped", "failed", "dead"]
    error: BaseException | None = None
    delay: float = 0.0

    @property
    def reason(self) -> str:
        """One line about the error, as ``ValueError: …``."""
        return "" if self.error is None else describe(self.error)

    @property
    def traceback(self) -> str:
        """The error's traceback, whole."""
        return "" if self.error is None else "".join(traceback.format_exception(self.error))


def describe(error: BaseException) -> str:
    """Return an error in a line; one whose ``__str__`` fails as well is named by its type alone."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a receiver's own exception class may do anything
        text = "(its text could not be read)"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def conclude(error: BaseException, *, attempt: int, retry: Retry, on_missing: str, spread: float) -> Outcome:
    """Decide what an error means.

    Args:
        error: what the attempt raised.
        attempt: its number, counted from the last fresh allowance.
        retry: the receiver's policy.
        on_missing: the receiver's word on rows that are gone.
        spread: where in the jitter's range the delay lies, from 0 up to 1.

    Returns:
        The outcome.
    """
    if isinstance(error, MissingRow) and on_missing == "skip":
        return Outcome("skipped", error)
    if isinstance(error, TextError):  # a payload that cannot be read, or is nested too deep, will not mend itself
        return Outcome("dead", error)
    # A class that is gone does not come back by waiting, but it may with the next deploy: tried again as any error.
    delay = retry.delay(attempt, error, spread=spread)
    return Outcome("dead", error) if delay is None else Outcome("failed", error, delay)


def call(function: Callable[..., Any], arguments: dict[str, Any], *, is_async: bool, timeout: float | None) -> None:
    """Call a receiver.

    Args:
        function: the receiver.
        arguments: what it gets, as keywords.
        is_async: it is a coroutine function.
        timeout: seconds, or None.

    Raises:
        TimeoutError: it took longer.
        BaseException: whatever the receiver raised, `SystemExit` included; only `KeyboardInterrupt` is not its own.
    """
    if is_async:
        async_to_sync(_awaited)(function, arguments, timeout)
        return
    if timeout is None or threading.current_thread() is not threading.main_thread():
        function(**arguments)  # the platform lets no other thread be interrupted
        return
    with _alarm(timeout):
        function(**arguments)


async def _awaited(function: Callable[..., Any], arguments: dict[str, Any], timeout: float | None) -> None:
    clock = asyncio.timeout(timeout)
    try:
        async with clock:
            await function(**arguments)
    except TimeoutError as error:
        if timeout is not None and clock.expired():
            raise TimeoutError(_over(timeout)) from error
        raise


def _over(seconds: float) -> str:
    return f"the receiver's timeout of {seconds:g} s is over"


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Interrupt the block after some seconds; in a main thread."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(_over(seconds))

    former = signal.signal(signal.SIGALRM, ring)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if former is None else former)
        signal.setitimer(signal.ITIMER_REAL, *others)

"""Call a receiver function, sync or async, within its timeout, and classify the error that it raises.

`invocation` uses `call`; `settling/outcome` uses `conclude`, which turns an error into an outcome. Knows neither
Celery nor tables.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Literal

from django.core.exceptions import SynchronousOnlyOperation

from signalbus.exceptions import MissingRow, TextError
from signalbus.receiving.invoking.tracebacks import format_error
from signalbus.receiving.process.event_loop import run_in_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

    from signalbus.retry import Retry

SYNCHRONOUS = (
    "(An async receiver cannot fetch a relation when it follows it: connect it with "
    '`select_related={"instance": ("cohort__academy",)}`, say; query with `aget()` and its like; and send with '
    "`await signal.asend(…)`.)"
)

GIVEN = frozenset({"signal", "sender"})  # which each receiver gets, whatever was sent


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
        return "" if self.error is None else format_error(self.error, self.error.__traceback__)


def describe(error: BaseException) -> str:
    """Return an error in a line, with its notes; one whose ``__str__`` fails is named by its type alone."""
    try:
        text = " ".join([str(error), *getattr(error, "__notes__", ())]).strip()
    except Exception:  # noqa: BLE001 - a receiver's own exception class may do anything
        text = "(its text could not be read)"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def conclude(error: BaseException, *, attempt: int, retry: Retry, on_missing: str, spread: float) -> Outcome:
    """Decide the outcome of an attempt from its error.

    Args:
        error: what the attempt raised.
        attempt: its number, counted from the last fresh allowance.
        retry: the receiver's policy.
        on_missing: the receiver's option for rows that are gone: "skip", "fail" or "snapshot".
        spread: a number from 0 up to 1 that chooses the delay within the jitter's range.

    Returns:
        The outcome.
    """
    if isinstance(error, MissingRow) and on_missing == "skip":
        return Outcome("skipped", error)
    if isinstance(error, TextError):  # a payload that cannot be read, or is nested too deep, cannot succeed later
        return Outcome("dead", error)
    delay = retry.delay(attempt, error, spread=spread)
    return Outcome("dead", error) if delay is None else Outcome("failed", error, delay)


def strip_traceback(error: BaseException) -> None:
    """Let an error's traceback begin with its receiver: the frames of the bus before it say nothing, and take time."""
    traceback_ = error.__traceback__
    while traceback_ is not None:
        if traceback_.tb_frame.f_code is call.__code__ and traceback_.tb_next is not None:
            error.__traceback__ = traceback_.tb_next
            return
        traceback_ = traceback_.tb_next


def call(function: Callable[..., Any], arguments: dict[str, Any], *, is_async: bool, timeout: float | None) -> None:
    """Call a receiver.

    Args:
        function: the receiver's function.
        arguments: what it gets, as keywords.
        is_async: it is a coroutine function.
        timeout: seconds, or None.

    Raises:
        TimeoutError: it took longer.
        BaseException: any error of the receiver, `SystemExit` included.
    """
    started = 0.0 if timeout is None else time.monotonic()
    if is_async:
        run_in_loop(_awaited, partial(function, **arguments), timeout)
        return
    if timeout is None or threading.current_thread() is not threading.main_thread():
        result = function(**arguments)  # the platform lets no other thread be interrupted
    else:
        with _alarm(timeout):
            result = function(**arguments)
    if result is not None and inspect.isawaitable(result):  # a plain wrapper around a coroutine function returns one
        spent = 0.0 if timeout is None else time.monotonic() - started
        run_in_loop(_awaited, lambda: result, timeout, spent)


def explain_refused_call(error: TypeError, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Add to an error the names of the payload, if the receiver's signature does not accept them.

    Args:
        error: what the call raised.
        function: the receiver.
        arguments: what it should have got, as keywords.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    if any(frame.f_code is code for frame, _ in walk_tb(error.__traceback__)):
        return  # it was called
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError:
        sent = ", ".join(name for name in arguments if name not in GIVEN) or "nothing"
        error.add_note(f"(It was sent {sent}: retries fail too, until the receiver's code is changed.)")


async def _awaited(begin: Callable[[], Awaitable[object]], timeout: float | None, spent: float = 0.0) -> None:
    clock = asyncio.timeout(None if timeout is None else timeout - spent)
    try:
        async with clock:
            await begin()
    except TimeoutError as error:
        if timeout is not None and clock.expired():
            raise TimeoutError(_over(timeout)) from error
        raise
    except SynchronousOnlyOperation as error:
        error.add_note(SYNCHRONOUS)
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

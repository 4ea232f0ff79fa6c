"""The run of one receiver has an outcome; only Ctrl-C goes another way."""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
import threading
from datetime import timedelta

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from signalbus import Reject, Retry, RetryLater
from signalbus.exceptions import MissingRow, TooLarge, UnknownClass
from signalbus.receiving.invoking.runner import call, conclude, describe, explain_refused_call

STEADY = Retry(max_attempts=3, base_delay=2, jitter=False)


def concluded(error, *, attempt=1, on_missing="skip"):
    """Conclude with the ordinary policy."""
    return conclude(error, attempt=attempt, retry=STEADY, on_missing=on_missing, spread=0.5)


def receiver_that_waits_for_ever(**kwargs):
    """Wait for something that never happens."""
    threading.Event().wait()


async def async_receiver_that_waits_for_ever(**kwargs):
    """Wait for something that never happens, in a coroutine."""
    await asyncio.Event().wait()


async def async_receiver_that_exits(**kwargs):
    """Try to end the process from a coroutine."""
    raise SystemExit(3)


class UnreadableError(Exception):
    """An error whose text cannot be read."""

    def __str__(self):
        raise RuntimeError("not even this")


class TestConclusions:
    def test_a_failure_is_retried(self):
        """An error before the last attempt gets the policy's delay."""
        outcome = concluded(ValueError("no luck"), attempt=2)
        assert (outcome.kind, outcome.delay) == ("failed", 4)
        assert outcome.reason == "ValueError: no luck"

    def test_bad_input_a_payload_nested_too_deep_is_dead_at_once(self):
        """The content of a signed text does not change with time."""
        assert concluded(TooLarge("65 containers")).kind == "dead"

    def test_the_last_failure_is_dead(self):
        """After the last attempt the delivery is dead."""
        assert concluded(ValueError(), attempt=3).kind == "dead"

    @pytest.mark.parametrize("error", [SystemExit(3), MemoryError(), GeneratorExit(), asyncio.CancelledError()])
    def test_a_base_exception_is_a_failed_attempt(self, error):
        """An error that is no ``Exception`` is a failure as well."""
        assert concluded(error).kind == "failed"

    def test_a_rejection_is_dead(self):
        """``Reject`` makes the delivery dead at once, with its reason."""
        outcome = concluded(Reject("no such plan"))
        assert (outcome.kind, outcome.reason) == ("dead", "Reject: no such plan")

    def test_retry_later_is_a_failed_attempt(self):
        """It has the requested delay."""
        outcome = concluded(RetryLater(timedelta(minutes=1)))
        assert (outcome.kind, outcome.delay) == ("failed", 60)

    @pytest.mark.parametrize(("on_missing", "kind"), [("skip", "skipped"), ("fail", "failed"), ("snapshot", "failed")])
    def test_a_missing_row_is_handled_by_on_missing(self, on_missing, kind):
        """The option decides the outcome."""
        outcome = concluded(MissingRow(("admissions.Cohort 7",)), on_missing=on_missing)
        assert outcome.kind == kind
        assert "admissions.Cohort 7" in outcome.reason

    def test_an_unknown_class_of_the_receiver_is_a_failure(self):
        """The error is the receiver's own, and not a missing row."""
        assert concluded(UnknownClass("shop:Cart", "not here")).kind == "failed"


class TestDescriptions:
    def test_an_unreadable_error_has_its_name(self):
        """It has a traceback too."""
        outcome = concluded(UnreadableError())
        assert "UnreadableError" in outcome.reason
        assert "UnreadableError" in outcome.traceback

    def test_an_errors_notes_are_recorded(self):
        """The notes are in the error's line and in its traceback."""
        error = ValueError("no luck")
        error.add_note("Try tomorrow.")
        outcome = concluded(error)
        assert outcome.reason == "ValueError: no luck Try tomorrow."
        assert "Try tomorrow." in outcome.traceback

    def test_an_error_without_a_text_is_its_name(self):
        """The description is not empty."""
        assert describe(KeyError()) == "KeyError"

    def test_the_traceback_shows_the_cause(self):
        """It has the whole chain of errors."""
        try:
            try:
                raise KeyError("cart")
            except KeyError as error:
                raise ValueError("no cart") from error
        except ValueError as error:
            outcome = concluded(error)
        assert "KeyError: 'cart'" in outcome.traceback
        assert "ValueError: no cart" in outcome.traceback


class TestInvocation:
    def test_sync_and_async_receivers_get_keyword_arguments(self):
        """Both kinds of receivers get their arguments as keywords."""
        heard = []

        async def listen(**kwargs):
            await asyncio.sleep(0)
            heard.append(kwargs)

        call(lambda **kwargs: heard.append(kwargs), {"label": "a"}, is_async=False, timeout=None)
        call(listen, {"label": "b"}, is_async=True, timeout=None)
        assert heard == [{"label": "a"}, {"label": "b"}]

    def test_a_plain_wrapper_of_a_coroutine_function_is_awaited(self):
        """The receiver is not done before."""
        heard = []

        async def listen(**kwargs):
            await asyncio.sleep(0)
            heard.append(kwargs)

        @functools.wraps(listen)
        def wrapper(**kwargs):
            return listen(**kwargs)

        call(wrapper, {"label": "a"}, is_async=False, timeout=None)
        assert heard == [{"label": "a"}]

    def test_a_timeout_includes_the_wrappers_awaitable(self):
        """The awaitable has the rest of the receiver's time."""
        with pytest.raises(TimeoutError, match=r"the receiver's timeout of 0\.05 s is over"):
            call(lambda **kwargs: async_receiver_that_waits_for_ever(), {}, is_async=False, timeout=0.05)

    def test_an_async_receiver_that_follows_a_relation_gets_the_remedy(self):
        """The error in the ledger names select_related=, which Django's does not."""

        async def follow(**kwargs):
            raise SynchronousOnlyOperation("You cannot call this from an async context")

        with pytest.raises(SynchronousOnlyOperation) as caught:
            call(follow, {}, is_async=True, timeout=None)
        reason = concluded(caught.value).reason
        assert reason.startswith("SynchronousOnlyOperation: You cannot call this from an async context (An async")
        assert 'select_related={"instance": ' in reason

    @pytest.mark.parametrize(
        ("receiver", "is_async"), [(receiver_that_waits_for_ever, False), (async_receiver_that_waits_for_ever, True)]
    )
    def test_a_timeout_interrupts_the_receiver(self, receiver, is_async):
        """The error says whose time it was."""
        with pytest.raises(TimeoutError, match=r"the receiver's timeout of 0\.05 s is over"):
            call(receiver, {}, is_async=is_async, timeout=0.05)

    def test_a_receivers_own_timeout_error_is_unchanged(self):
        """A TimeoutError that the receiver raises keeps its text."""

        async def impatient(**kwargs):
            raise TimeoutError("the shop did not answer")

        with pytest.raises(TimeoutError, match="the shop did not answer"):
            call(impatient, {}, is_async=True, timeout=60)

    def test_the_alarm_handler_is_restored(self):
        """This holds after a timeout, and after a run without one."""
        former = signal.getsignal(signal.SIGALRM)
        call(lambda **kwargs: None, {}, is_async=False, timeout=60)
        assert signal.getsignal(signal.SIGALRM) is former
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    def test_a_nested_delivery_keeps_the_outer_timeout(self):
        """The time of the outer delivery goes on."""

        def outer(**kwargs):
            call(lambda **kwargs: None, {}, is_async=False, timeout=60)
            receiver_that_waits_for_ever()

        with pytest.raises(TimeoutError, match=r"the receiver's timeout of 0\.2 s is over"):
            call(outer, {}, is_async=False, timeout=0.2)

    def test_a_timeout_in_a_thread_does_not_fail(self):
        """A thread cannot be interrupted, so the receiver runs without a limit."""
        heard = []
        thread = threading.Thread(
            target=call,
            args=(lambda **kwargs: heard.append(1), {}),
            kwargs={"is_async": False, "timeout": 1.0},
        )
        thread.start()
        thread.join(10)
        assert heard == [1]

    def test_an_exit_from_a_coroutine_is_raised(self):
        """It reaches the caller, and the next coroutine runs."""
        with pytest.raises(SystemExit):
            call(async_receiver_that_exits, {}, is_async=True, timeout=None)
        heard = []

        async def listen(**kwargs):
            heard.append(1)

        call(listen, {}, is_async=True, timeout=None)
        assert heard == [1]


def decorated(function):
    """Wrap a function as decorators do."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def requires(sender, instance, craeted, **kwargs):
    """Require what nobody sends."""


def requires_keyword(*, instance, craeted, **kwargs):
    """Require what nobody sends, as a keyword."""


async def requires_async(sender, instance, craeted, **kwargs):
    """Require what nobody sends, in a coroutine."""


def calls_wrongly(sender, **kwargs):
    """Make the same mistake inside."""
    requires(sender)  # type: ignore[call-arg]  # the mistake


def compares_wrongly(sender, **kwargs):
    """Make another mistake with types."""
    return sender < 1


SENT = {"sender": None, "signal": None, "instance": 1, "created": True}
NOTE = "(It was sent instance, created: retries fail too, until the receiver's code is changed.)"


@pytest.mark.parametrize(
    "function", [requires, requires_keyword, requires_async, decorated(requires), decorated(requires_async)]
)
def test_the_error_of_a_missing_parameter_names_the_sent_ones(function):
    """The error says that no retry helps before the receiver's code is changed; it is retried all the same."""
    with pytest.raises(TypeError, match="craeted") as caught:
        call(function, SENT, is_async=inspect.iscoroutinefunction(function), timeout=None)
    explain_refused_call(caught.value, function, SENT)
    outcome = concluded(caught.value)
    assert outcome.kind == "failed"
    assert outcome.reason.startswith("TypeError: requires")
    assert outcome.reason.endswith(f"'craeted' {NOTE}")


@pytest.mark.parametrize("function", [calls_wrongly, compares_wrongly, decorated(calls_wrongly)])
def test_an_error_of_types_inside_a_receiver_is_its_own(function):
    """Nothing is said of what was sent."""
    with pytest.raises(TypeError) as caught:
        call(function, SENT, is_async=False, timeout=None)
    explain_refused_call(caught.value, function, SENT)
    assert "was sent" not in describe(caught.value)


def test_the_error_of_an_empty_payload_names_no_parameters():
    """The payload may be empty."""
    with pytest.raises(TypeError) as caught:
        call(requires, {"sender": None, "signal": None}, is_async=False, timeout=None)
    explain_refused_call(caught.value, requires, {"sender": None, "signal": None})
    assert "It was sent nothing: retries fail too" in describe(caught.value)

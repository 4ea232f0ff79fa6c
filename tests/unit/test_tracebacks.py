"""The text of a failed attempt's error, for the ledger and for the log."""

from __future__ import annotations

import linecache
import logging
import traceback
from typing import Any
from uuid import uuid4

import pytest

from signalbus.context import CurrentDelivery
from signalbus.events import Event
from signalbus.receiving.invoking.tracebacks import format_error
from signalbus.receiving.settling import listeners


def _raise(error: BaseException) -> None:
    raise error


def _chained_to_itself() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def _with_cause() -> None:
    try:
        _raise(KeyError("slug"))
    except KeyError as error:
        raise ValueError("no slug") from error


def _with_context() -> None:
    try:
        _with_cause()
    except ValueError:
        _raise(LookupError("while that was handled"))


def _without_context() -> None:
    try:
        _with_cause()
    except ValueError:
        raise LookupError("alone") from None


def _with_note() -> None:
    error = ValueError("two\nlines")
    error.add_note("and a note")
    raise error


def _unreadable() -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    raise Unreadable


def _group() -> None:
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


def _misspelt_name() -> None:
    value = 1  # noqa: F841 - what is suggested
    valeu  # type: ignore[name-defined]  # noqa: B018, F821


def _misspelt_attribute() -> None:
    [].apend  # type: ignore[attr-defined]  # noqa: B018


def _syntax() -> None:
    compile("a b", "made", "exec")


def _recursion(depth: int = 20) -> None:
    if depth == 0:
        raise ValueError("deep")
    _recursion(depth - 1)


def _endless() -> None:
    _endless()


FAILURES = [
    lambda: _raise(LookupError("the other side does not answer")),
    _chained_to_itself,
    _with_cause,
    _with_context,
    _without_context,
    _with_note,
    _unreadable,
    _group,
    _misspelt_name,
    _misspelt_attribute,
    _syntax,
    _recursion,
    _endless,
    lambda: _raise(SystemExit(3)),
    lambda: 1 / 0,
]


def _failure(function) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError


@pytest.mark.parametrize("function", FAILURES)
def test_an_error_is_formatted_as_the_standard_library_does(function):
    """This holds for the first time, and when the text is remembered."""
    for _ in range(2):
        error = _failure(function)
        assert format_error(error, error.__traceback__) == "".join(traceback.format_exception(error))


def test_an_error_that_was_not_raised():
    """An error without a traceback is formatted as well."""
    error = ValueError("never raised")
    assert format_error(error, None) == "".join(traceback.format_exception(error))


def test_the_source_of_a_place_is_formatted_once():
    """The source is read for the first error of a place only."""
    name, source = "<made for a test>", "def fail(what):\n    raise ValueError(what)\n"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names: dict[str, Any] = {}
    exec(compile(source, name, "exec"), names)
    texts = []
    for what in ("first", "second"):
        error = _failure(lambda what=what: names["fail"](what))
        texts.append(format_error(error, error.__traceback__))
        linecache.cache.pop(name, None)
    assert "    raise ValueError(what)\n" in texts[1]
    assert texts[1] == texts[0].replace("first", "second")


class CollectedLines(logging.Handler):
    """A handler that keeps the text of each record."""

    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text."""
        self.texts.append(self.format(record))


class OneLine(logging.Formatter):
    """A formatter that formats errors as the cookbook of logging does."""

    def formatException(self, ei) -> str:
        """Return an error in a line."""
        return f"in a line: {ei[1]!r}"


@pytest.fixture
def logged(request):
    """The output of two handlers of our logger, one of them with a host's formatter."""
    own, plain = CollectedLines(request.param), CollectedLines(None)
    listeners.logger.addHandler(own)
    listeners.logger.addHandler(plain)
    yield own.texts, plain.texts
    listeners.logger.removeHandler(own)
    listeners.logger.removeHandler(plain)


def _log_a_failure() -> str:
    error = _failure(_with_cause)
    delivery = CurrentDelivery(
        message_id=uuid4(), signal="app.signal", receiver="app.receiver", attempt=1, root=uuid4(), parent=None, path=()
    )
    listeners.log_outcome(Event("failed", delivery, error, 2.0))
    return "".join(traceback.format_exception(error)).removesuffix("\n")


@pytest.mark.parametrize("logged", [None], indirect=True)
def test_the_log_has_the_traceback(logged):
    """It is where logging itself would put it."""
    text = _log_a_failure()
    for texts in logged:
        assert len(texts) == 1
        assert texts[0].endswith(f"again in 2.0 s\n{text}")


@pytest.mark.parametrize("logged", [OneLine()], indirect=True)
def test_a_hosts_format_of_errors_is_used(logged):
    """A formatter with its own format of errors is called for each."""
    _log_a_failure()
    assert logged[0][0].endswith("again in 2.0 s\nin a line: ValueError('no slug')")

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""The options of ``connect`` and ``receiver`` are typed: mypy and pyright, which `make check` runs, report a mistake.

Both also report a ``type: ignore`` that ignores nothing, so each one here shows that its line is refused.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import assert_type

import pytest

from signalbus import Retry, Signal, receiver
from signalbus.exceptions import ConfigurationError
from signalbus.registration.policy import CONNECT_OPTIONS, ConnectOptions, Policy, ReceiverOptions


def on_event(sender: object, **kwargs: object) -> int:
    """Receive."""
    return 7


@pytest.fixture
def signal() -> Signal:
    """Make a signal."""
    return Signal("tests.connect_types")


def test_each_option_is_accepted(signal: Signal):
    """Both functions take each option with its type, and `receiver` returns the function with the type that it had."""
    signal.connect(
        on_event, None, False, "first", retry=Retry(max_attempts=3), queue="mails", inline=False, atomic=True
    )
    signal.connect(on_event, int, on_missing="fail", timeout=1.5, select_related={"instance": ["cohort"]}, was=["old"])
    signal.connect(on_event, str, retry=None, queue=None, atomic=None, timeout=None, select_related=None, was="old")
    connect = receiver(
        [signal],
        sender=float,
        weak=False,
        dispatch_uid="second",
        retry=Retry(max_attempts=3),
        queue="mails",
        inline=False,
        atomic=True,
        on_missing="snapshot",
        timeout=5,
        select_related={"instance": "cohort"},
        was=("older", "oldest"),
    )

    assert assert_type(connect(on_event)(None), int) == 7
    assert [entry.policy.was for entry in signal.entries()] == [(), ("old",), ("old",), ("older", "oldest")]


def test_each_option_is_declared_for_type_checkers():
    """The options that are checked, shown and documented are those that type checkers know, in the same order."""
    declared = list(ConnectOptions.__annotations__)

    assert [each.name for each in fields(Policy)] == declared
    assert list(inspect.signature(Signal.connect).parameters)[-len(declared) :] == declared
    assert all(f"\n    {name}: " in (inspect.getdoc(Signal.connect) or "") for name in declared)
    assert set(ReceiverOptions.__annotations__) == {*CONNECT_OPTIONS}


def test_a_value_of_another_type_is_refused(signal: Signal):
    """A value that the option does not take is an error of the type checker, and when the code runs."""
    with pytest.raises(ConfigurationError, match="retry=3"):
        signal.connect(on_event, retry=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="timeout='1'"):
        signal.connect(on_event, timeout="1")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="queue=7"):
        receiver(signal, queue=7)(on_event)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="select_related="):
        receiver(signal, select_related=["cohort"])(on_event)  # type: ignore[arg-type]


def test_an_option_that_does_not_exist_is_refused(signal: Signal):
    """A name that neither function takes is an error of the type checker, and when the code runs."""
    with pytest.raises(TypeError, match="did you mean timeout=1"):
        signal.connect(on_event, time_out=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean queue='mails'"):
        receiver(signal, que="mails")  # type: ignore[call-arg]

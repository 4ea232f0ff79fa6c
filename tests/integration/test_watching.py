"""``--watch`` repeats the report of a command until Ctrl-C."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command

from .bus import Bus, fails, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable


class Terminal(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def watch(
    monkeypatch: pytest.MonkeyPatch, out: io.StringIO, *arguments: str, between: Callable[[], object] = lambda: None
) -> list[float]:
    """Run a command, which is ended by Ctrl-C after its second report; return how long it waited."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise KeyboardInterrupt
        between()

    monkeypatch.setattr("signalbus.management.watching.sleep", sleep)
    call_command("signalbus", *arguments, stdout=out, stderr=io.StringIO())
    return waited


@pytest.mark.parametrize(
    "command", [["status"], ["running"], ["failed"], ["failed", "--group"], ["operations"]], ids=" ".join
)
def test_a_report_is_repeated_until_ctrl_c(bus: Bus, monkeypatch: pytest.MonkeyPatch, command: list[str]):
    """Each command that shows how things stand can be watched; where it is piped, the reports follow each other."""
    once, out = io.StringIO(), io.StringIO()
    call_command("signalbus", *command, stdout=once)

    assert watch(monkeypatch, out, *command, "--watch", "0.5") == [0.5, 0.5]

    assert out.getvalue() == f"{once.getvalue()}\n" * 2


def test_a_watched_report_shows_what_has_changed(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """Every two seconds if nothing is said."""
    signal, out = new_signal(durable=True), io.StringIO()
    fails(signal, KeyError("slug"))

    def fail() -> None:
        signal.send(None)
        bus.work()

    assert watch(monkeypatch, out, "failed", "--group", "--watch", between=fail) == [2.0, 2.0]

    first, second = out.getvalue().split("\n\n")[:2]
    assert first == "Nothing has failed."
    assert "KeyError" in second


def test_a_terminal_is_drawn_anew(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """Each report replaces the one before, under a title with the time."""
    out = Terminal()
    watch(monkeypatch, out, "running", "--watch")

    _, *reports = out.getvalue().split("\x1b[H\x1b[2J")
    assert len(reports) == 2
    assert all(each.startswith("Every 2 s, until Ctrl-C: ") for each in reports)


def test_an_error_does_not_end_a_watch(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """The broker may come back: the error is printed in the place of the report."""
    monkeypatch.setattr("signalbus.management.status_report.report", lambda: raising("the broker cannot be asked"))
    out = io.StringIO()
    watch(monkeypatch, out, "status", "--watch")

    assert out.getvalue().count("the broker cannot be asked") == 2


def raising(text: str) -> None:
    """Raise an error of a command."""
    raise CommandError(text)


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "1e9"])
def test_bad_input_seconds_that_are_none_are_refused(bus: Bus, seconds: str):
    """The error says what is possible."""
    with pytest.raises(CommandError, match=r"no number of seconds from 0\.2 to 86400"):
        call_command("signalbus", "running", f"--watch={seconds}")

"""`signalbus dev` restarts its worker when a file changes or the worker ends, and ends everything on Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.core.management import CommandError

from signalbus.compat.django_autoreload import ProjectReloader
from signalbus.management.dev import supervisor
from signalbus.management.dev.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable


class ScriptedWorker:
    """A worker without a process, which does at its start what the test says, and ends warmly.

    Args:
        on_end: called with its exit status.
    """

    steps: ClassVar[list[Callable[[ScriptedWorker], object]]]
    sent: ClassVar[list[signal.Signals | str]]
    change: ClassVar[Callable[[Path], None]]
    hangs = False

    def __init__(self, _arguments: list[str], on_end: Callable[[int], None], _on_folders: object) -> None:
        self.on_end = on_end
        self.steps.pop(0)(self)

    def send(self, number: signal.Signals) -> None:
        """End when it is told to, unless the test lets it hang."""
        self.sent.append(number)
        if number != signal.SIGTERM or not self.hangs:
            self.on_end(0)

    def kill(self) -> None:
        """End at once."""
        self.sent.append("KILL")
        self.on_end(-9)


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """Use the scripted worker, and watch no files; return what is written."""
    monkeypatch.setattr(supervisor, "WorkerProcess", ScriptedWorker)
    monkeypatch.setattr(ProjectReloader, "watch", lambda _self: None)
    ScriptedWorker.sent = []
    return []


def interrupt(_worker: ScriptedWorker) -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def run(lines: list[str], *steps: Callable[[ScriptedWorker], object], broker: Any = None) -> list[str]:
    """Run a supervisor whose workers do one step each at their start."""
    ScriptedWorker.steps = list(steps)
    supervised = Supervisor(lines.append, ["manage.py"], broker)
    ScriptedWorker.change = supervised._reloader.notify_file_changed
    supervised.run()
    assert not ScriptedWorker.steps
    return lines


def change(_worker: ScriptedWorker) -> None:
    """Change a file."""
    ScriptedWorker.change(Path("/shop/receivers.py"))


def each(*steps: Callable[[ScriptedWorker], object]) -> Callable[[ScriptedWorker], None]:
    """Return a step that does some others, one after another."""

    def all_of_them(worker: ScriptedWorker) -> None:
        for step in steps:
            step(worker)

    return all_of_them


def test_changed_file_restarts_the_worker(lines):
    """The worker ends warmly, then starts again; Ctrl-C ends it warmly too."""
    run(lines, change, interrupt)
    assert ScriptedWorker.sent == [signal.SIGTERM, signal.SIGTERM]
    assert lines[0] == "/shop/receivers.py has changed: the worker restarts when its receivers have ended."
    assert "Ctrl-C again" in lines[1]


def test_several_changes_are_one_restart(lines):
    """An editor that saves two files restarts the worker once."""
    run(lines, each(change, change), interrupt)
    assert ScriptedWorker.sent == [signal.SIGTERM, signal.SIGTERM]


def test_worker_that_cannot_start_is_started_again_by_a_change(lines):
    """A syntax error ends the worker; nothing is started again before a file changes."""
    run(lines, each(lambda worker: worker.on_end(1), change), interrupt)
    assert lines[:2] == [
        "The worker ended with status 1. It starts again when a file of the project changes.",
        "/shop/receivers.py has changed: the worker starts.",
    ]
    assert ScriptedWorker.sent == [signal.SIGTERM]


def test_a_killed_worker_is_reported_with_its_signal(lines):
    """The worker may have run out of memory."""
    run(lines, each(lambda worker: worker.on_end(-9), interrupt))
    assert lines[0].startswith("The worker ended by the signal 9.")


def test_second_and_third_interrupt_do_not_wait(lines, monkeypatch):
    """The first Ctrl-C waits for the receivers, the second interrupts them, the third kills the worker."""
    monkeypatch.setattr(ScriptedWorker, "hangs", True)
    run(lines, each(interrupt, interrupt))
    assert ScriptedWorker.sent == [signal.SIGTERM, signal.SIGQUIT]

    ScriptedWorker.sent.clear()
    monkeypatch.setattr(ScriptedWorker, "send", lambda self, number: self.sent.append(number))
    run(lines, each(interrupt, interrupt, interrupt))
    assert ScriptedWorker.sent == [signal.SIGTERM, signal.SIGQUIT, "KILL"]


def test_broker_that_ended_is_an_error(lines, monkeypatch):
    """The log of the broker is shown, and the worker is ended."""
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.01)

    class EndedBroker:
        pid = None
        log = "out of memory"

    with pytest.raises(CommandError, match="ended by itself:\nout of memory"):
        run(lines, lambda _worker: None, broker=EndedBroker())
    assert ScriptedWorker.sent == ["KILL"]


def test_former_handlers_are_restored(lines):
    """What runs after `dev` in this process is interrupted as before."""
    former = signal.getsignal(signal.SIGINT)
    run(lines, interrupt)
    assert signal.getsignal(signal.SIGINT) is former

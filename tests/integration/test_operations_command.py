"""``retry`` and ``discard`` of many deliveries, and ``operations``: what they start, print and return."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from signalbus import Retry, Signal
from signalbus.management import operation_report
from signalbus.management.subcommands.deliveries import retry_and_discard
from signalbus.models import Delivery, Operation
from signalbus.receiving.sweeping.due_publication import sweep
from tests.other_servers import DATABASE

from .bus import Bus, connect, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def database() -> str:
    """One database: `test_bulk_operations` makes the statements on each."""
    return DATABASE or "sqlite"


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What the receiver of `failing` raises; more than three deliveries are an operation."""
    monkeypatch.setattr(retry_and_discard, "AT_ONCE", 3)
    return [ValueError("the bug")]


@pytest.fixture
def failing(bus: Bus, errors: list[BaseException]) -> Signal:
    """A signal with five dead deliveries."""
    signal = new_signal(durable=True)

    def receiver_with_a_bug(**kwargs):
        for error in errors:
            raise error

    connect(signal, receiver_with_a_bug, "crm.sync", retry=Retry(max_attempts=1))
    signal.send_many(None, [{"number": number} for number in range(5)])
    bus.work()
    return signal


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def run(*arguments: object, out: io.StringIO | None = None) -> str:
    """Run the command, and return what it prints."""
    out = io.StringIO() if out is None else out
    call_command("signalbus", *map(str, arguments), stdout=out)
    return out.getvalue()


def let_workers_work(monkeypatch: pytest.MonkeyPatch, bus: Bus, *, also: Callable[[], object] = lambda: None) -> None:
    """Let sweepers and workers do what is to be done, whenever the command waits; ten seconds pass then."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += 10
        for row in Operation.objects.filter(ended_at=None):
            row.details["count_at"] = 0.0
            row.save(update_fields=["details"])
        sweep()
        bus.work()
        also()

    monkeypatch.setattr(operation_report, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))


def test_many_deliveries_become_an_operation(failing: Signal):
    """The command returns at once, and says how to watch it; a few are retried at once."""
    said = run("retry", "receiver:crm.*", "--rate", "20/s", "--reason", "fixed")
    number = Operation.objects.get().pk
    assert said.splitlines() == [
        f"Operation {number}: retry receiver:crm.*, one first, then ten, then the others. The workers' sweepers do it.",
        f"`manage.py signalbus operations {number} --wait` shows its progress.",
    ]
    assert set(rows()) == {("crm.sync", "dead", 1)}
    assert run("retry", "receiver:crm.*", "--limit", "2") == "2 deliveries due again.\n"


def test_now_retries_all_at_once(failing: Signal):
    """For scripts that relied on it."""
    assert run("retry", "--all", "--now") == "5 deliveries due again.\n"
    assert run("discard", "receiver:crm.*", "--now") == "5 deliveries discarded.\n"


def test_all_deliveries_can_be_an_operation(failing: Signal):
    """A limit counts the oldest."""
    run("retry", "--all", "--limit", "4")
    (shown,) = json.loads(run("operations", "--json"))["operations"]
    assert (shown["kind"], shown["filter"], shown["limit"], shown["state"]) == ("retry", [], 4, "waiting")


def test_wait_shows_the_progress_until_all_are_done(
    bus: Bus, failing: Signal, errors: list[BaseException], monkeypatch: pytest.MonkeyPatch
):
    """In lines where the output is no terminal; a small number is an operation as well then."""
    errors.clear()
    let_workers_work(monkeypatch, bus)
    lines = run("retry", "receiver:crm.sync", "--limit", "2", "--wait").splitlines()
    number = Operation.objects.get().pk
    assert lines[1] == f"{number}  waiting: no worker has begun it"
    assert lines[2].startswith(f"{number}  running: 1 of 2 retried, ")
    assert lines[-1] == f"{number}  done: 2 of 2 retried, 2 done, 0 failed again"


def test_wait_shows_one_line_on_a_terminal(
    bus: Bus, failing: Signal, errors: list[BaseException], monkeypatch: pytest.MonkeyPatch
):
    """It is written over, and what it was is not left beside it."""
    errors.clear()
    let_workers_work(monkeypatch, bus)
    said = run("retry", "receiver:crm.sync", "--wait", out=Terminal())
    start, *rest = said.split("\n", 1)
    assert start.startswith("Operation ")
    assert rest[0].count("\n") == 1
    assert rest[0].split("\r")[-1].endswith("  done: 5 of 5 retried, 5 done, 0 failed again\n")


def test_wait_fails_if_the_bug_is_not_fixed(bus: Bus, failing: Signal, monkeypatch: pytest.MonkeyPatch):
    """The error says why and how many; `operations` shows the delivery."""
    let_workers_work(monkeypatch, bus)
    with pytest.raises(CommandError) as caught:
        run("retry", "receiver:crm.sync", "--wait", "--reason", "try\x1b[31m")
    number = Operation.objects.get().pk
    assert str(caught.value) == (
        f"Operation {number} is stopped because of ValueError: the bug; 1 failed again, 4 not retried: "
        f"`manage.py signalbus operations {number}` says more."
    )
    shown = run("operations", number)
    again, group = Delivery.objects.order_by("pk")[0], Delivery.objects.values_list("error_group", flat=True)[0]
    assert shown.startswith(f"{number}  stopped because of ValueError: the bug: retry receiver:crm.sync by ")
    assert "(try\\x1b[31m): 1 of 5 retried, 0 done, 1 failed again" in shown
    assert f"{again.pk}  dead  2 attempts  {failing.name} -> crm.sync\n    ValueError: the bug\n" in shown
    assert f"start again: `manage.py signalbus retry group:{group}`" in shown
    found = json.loads(run("operations", number, "--json"))
    assert (found["schema"], found["operation"]["stopped_group"]) == (1, group)
    assert [each["id"] for each in found["failed_again"]] == [str(again.pk)]


def test_wait_says_that_no_worker_has_begun_it(bus: Bus, failing: Signal, monkeypatch: pytest.MonkeyPatch):
    """Once, and after a while; an interruption leaves the operation to the workers."""
    clock = iter(range(0, 1000, 10))

    def sleep(seconds: float) -> None:
        if next(clock) > 50:
            raise KeyboardInterrupt

    monkeypatch.setattr(operation_report, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: next(clock)))
    out = io.StringIO()
    with pytest.raises(SystemExit, match="130"):
        run("retry", "receiver:crm.sync", "--wait", out=out)
    assert out.getvalue().count("No worker has begun it: does one of this version run?") == 1
    number = Operation.objects.get().pk
    assert out.getvalue().endswith(f"Operation {number} goes on: `operations {number} --cancel` ends it.\n")


def test_an_operation_is_paused_resumed_and_cancelled(failing: Signal):
    """Each change has its reason in the log; `status` shows what has not ended."""
    run("retry", "receiver:crm.sync", "--reason", "fixed")
    number = Operation.objects.get().pk
    assert run("operations", number, "--pause", "--reason", "lunch").startswith(f"{number}  paused: retry")
    assert f"operation {number}  paused: retry receiver:crm.sync" in run("status")
    assert run("operations", number, "--resume").startswith(f"{number}  waiting: retry")
    assert run("operations", number, "--cancel").startswith(f"{number}  cancelled: retry")
    assert "operation " not in run("status")
    assert [each["kind"] for each in json.loads(run("log", "--json"))["entries"]] == [
        "cancel", "resume", "pause", "retry",
    ]  # fmt: skip
    assert f"pause operation:{number}: lunch" in run("log")
    assert run("operations").splitlines() == [run("operations", number).splitlines()[0]]


def test_a_dry_run_says_how_many_how_old_and_for_whom(failing: Signal):
    """It starts nothing."""
    said = run("retry", "receiver:crm.sync", "--dry-run").splitlines()
    assert said[0] == "retry would be asked of 5 deliveries."
    assert said[1:6] == [f"    {pk}" for pk in Delivery.objects.order_by("pk").values_list("pk", flat=True)]
    assert said[6].startswith("The oldest was sent at 20")
    assert said[7].split() == ["5", "crm.sync"]
    assert run("discard", "receiver:crm.sync", "--limit", "2", "--dry-run").splitlines()[-1].split() == [
        "2",
        "crm.sync",
    ]
    assert not Operation.objects.exists()


WRONG: list[tuple[tuple[object, ...], str]] = [
    (("operations", 4711), "There is no operation 4711"),
    (("operations", "--cancel"), "Say which: `manage.py signalbus operations ID --cancel`"),
    (("operations", "--wait"), "Say which"),
    (("operations", "--limit", 0), "at least 1"),
    (("retry", "0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b", "--wait"), "--wait is for a filter or --all"),
]


def test_wrong_input_is_an_error(database_url: str):
    """The error says what to write."""
    for arguments, text in WRONG:
        with pytest.raises(CommandError) as caught:
            run(*arguments)
        assert text in str(caught.value)
    assert run("operations").startswith("There was no operation")


def test_an_operation_that_has_ended_cannot_be_paused(failing: Signal):
    """The error names its state."""
    run("discard", "receiver:crm.sync")
    sweep()
    number = Operation.objects.get().pk
    assert run("operations").startswith(f"{number}  done: discard receiver:crm.sync by ")
    with pytest.raises(CommandError, match=f"Operation {number} is done"):
        run("operations", number, "--pause")


def test_an_operation_counts_as_any(failing: Signal, errors: Any):
    """`log` has it as one line, with its numbers."""
    run("discard", "receiver:crm.sync", "--reason", "test data")
    sweep()
    (line,) = run("log").splitlines()
    assert line.endswith("(command)  discard filter:receiver:crm.sync found:5 discarded:5: test data")

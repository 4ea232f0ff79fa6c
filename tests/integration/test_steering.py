"""``pause``, ``resume`` and ``log``, and the services behind them: names, permissions, and the audit log."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from django.db import transaction

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.ledger.attempts import hold_delivery
from signalbus.ledger.base.clock import Now
from signalbus.models import Delivery, Operation, Pause, State, WorkerRecord
from signalbus.services.actors import Actor, code_actor, user_actor
from signalbus.services.audit_log import read_log
from signalbus.services.changes import delivery_changes, pausing

from .bus import Bus, connect, fails, new_signal, only

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus import Signal


@pytest.fixture
def signal(database_url: str) -> Signal:
    """A signal with one receiver, called "receiver"."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver", was=["former"])
    return signal


def run(*arguments: object) -> str:
    """Run the command, and return what it prints."""
    out = io.StringIO()
    call_command("signalbus", *map(str, arguments), stdout=out)
    return out.getvalue()


def hold_one(bus: Bus, signal: Signal) -> None:
    """Let a delivery be held, as a worker does."""
    signal.send(None)
    bus.take()
    Delivery.objects.update(state=State.HELD, held_reason="receiver:receiver is paused by ana: why")


def test_pause_says_what_it_does_and_lists_what_is_paused(bus: Bus, signal: Signal):
    """One line for each, with who, since when, until when, how many and why; nothing is a sentence."""
    assert run("pause") == "Nothing is paused.\n"
    said = run("pause", "receiver:receiver", "--reason", "the CRM\x1b[31m is down", "--until", "2h")
    assert said == "receiver:receiver is paused: workers obey within 5 seconds.\n"
    hold_one(bus, signal)

    (line,) = run("pause").splitlines()
    assert line.startswith("PAUSED receiver:receiver by ")
    assert line.endswith(", 1 held: the CRM\\x1b[31m is down")
    assert line in run("status")
    shown = json.loads(run("pause", "--json"))
    (paused,) = shown["paused"]
    length = datetime.fromisoformat(paused["until"]) - datetime.fromisoformat(paused["since"])
    assert timedelta(hours=1, minutes=59) < length <= timedelta(hours=2, seconds=1)
    assert (shown["schema"], paused["kind"], paused["name"], paused["held"]) == (1, "receiver", "receiver", 1)


def test_a_second_pause_replaces_reason_and_end(signal: Signal):
    """The pause keeps its beginning."""
    run("pause", "receiver:receiver", "--reason", "first", "--until", "1h")
    since = Pause.objects.get().since
    assert "was paused before" in run("pause", "receiver:receiver", "--reason", "second")
    pause = Pause.objects.get()
    assert (pause.reason, pause.until, pause.since) == ("second", None, since)


def test_a_pause_can_end_at_a_given_time(signal: Signal):
    """A time without a zone is in the project's; one that is over is an error."""
    soon = datetime.now(UTC) + timedelta(hours=3)
    run("pause", "receiver:receiver", "--until", soon.isoformat())
    (paused,) = ledger.pauses()
    assert paused.until is not None
    assert abs(paused.until - soon) < timedelta(seconds=5)
    with pytest.raises(CommandError, match="over already"):
        run("pause", "receiver:receiver", "--until", "2020-01-01T00:00")
    assert Operation.objects.count() == 1


WRONG = [
    (("pause", "receiver:reciever"), "knows a receiver 'reciever'. Did you mean 'receiver'"),
    (("pause", "receiver:reciever"), "--unknown"),
    (("pause", "signal:receiver"), "knows a signal"),
    (("pause", "queue:mails"), "knows a queue"),
    (("pause", "tag:a"), "is not KIND:NAME"),
    (("pause", "receiver:"), "is not KIND:NAME"),
    (("pause", "receiver:receiver", "--until", "tomorrow"), "is no time"),
    (("pause", "receiver:receiver", "--until", "2026-13-01"), "is no time"),
    (("resume", "receiver:receiver"), "is not paused. Nothing is paused."),
    (("resume", "receiver:receiver", "--rate", "0/s"), "is no rate"),
    (("resume", "receiver:receiver", "--rate", "fast"), "is no rate"),
    (("log", "--limit", "0"), "is no number from 1"),
]


def test_wrong_input_is_an_error_that_says_what_to_write(signal: Signal):
    """The error says what to write, and nothing changes."""
    for arguments, error in WRONG:
        with pytest.raises(CommandError) as caught:
            run(*arguments)
        assert error in str(caught.value)
    assert not Pause.objects.exists()
    assert not Operation.objects.exists()


def test_a_former_name_and_one_that_only_workers_know_can_be_paused(signal: Signal):
    """A name that nobody knows needs a word."""
    WorkerRecord.objects.create(
        name="w", host="h", pid=1, pool="solo", concurrency=1, queues=["far"], version="", registry_digest="",
        receivers={"their.signal": ["their.receiver"]}, started_at=Now(), seen_at=Now(),
    )  # fmt: skip
    run("pause", "receiver:former")
    for target in ("receiver:their.receiver", "signal:their.signal", "queue:far", "signal:their.*"):
        assert "This process does not know it; workers may." in run("pause", target)
    Pause.objects.exclude(name="former").delete()
    run("pause", "receiver:elsewhere", "--unknown")
    with pytest.raises(
        CommandError, match=r"receiver:x is not paused\. Paused are receiver:former, receiver:elsewhere"
    ):
        run("resume", "receiver:x")


def test_several_words_and_stars_are_a_filter(signal: Signal):
    """A comma in the id of a receiver is none."""
    connect(signal, lambda **kwargs: None, "a,b")
    run("pause", "receiver:a,b")
    run("pause", "receiver:rec*", f"signal:{signal.name}")
    run("pause", "receiver:former,receiver")
    assert [(each.kind, each.name) for each in ledger.pauses()] == [
        ("receiver", "a,b"),
        ("filter", f"receiver:rec* signal:{signal.name}"),
        ("filter", "receiver:former,receiver"),
    ]
    run("resume", "receiver:rec*", f"signal:{signal.name}")
    assert [each.resumed_at is None for each in ledger.pauses()] == [True, False, True]
    with pytest.raises(ConfigurationError, match="'attempts' cannot be told before a delivery runs"):
        pausing.pause("filter", "attempts:3", actor=code_actor())
    with pytest.raises(ConfigurationError, match="did you mean 'receiver'"):
        pausing.pause("filter", "reciever:a", actor=code_actor())


def test_resume_says_how_many_it_releases(bus: Bus, signal: Signal):
    """At which rate, too; while they are released, the list says so."""
    run("pause", "receiver:receiver")
    hold_one(bus, signal)
    said = run("resume", "receiver:receiver", "--rate", "30/m")
    assert (
        said == "receiver:receiver is resumed: 1 held delivery is released at 0.5 a second by the workers' sweepers.\n"
    )
    assert run("pause") == "receiver:receiver is resumed: 1 held, released at 0.5 a second\n"
    assert json.loads(run("resume", "receiver:receiver", "--json")) == {
        "schema": 1, "kind": "receiver", "name": "receiver", "held": 1, "rate": None,
    }  # fmt: skip


def test_failed_shows_why_a_delivery_is_held_and_no_time(bus: Bus, signal: Signal):
    """The delivery waits for a resumption, not for a time."""
    ledger.pause("receiver", "receiver")
    signal.send(None)
    bus.take()
    assert ledger_hold(only().pk)
    listed = run("failed", "--state", "held")
    assert "held: receiver:receiver is paused" in listed
    assert "due at" not in listed


def ledger_hold(delivery: Any) -> bool:
    """Hold a delivery without an end."""
    return hold_delivery(delivery, "receiver:receiver is paused", float("inf"))


def test_the_log_has_each_change(bus: Bus, signal: Signal, caplog: pytest.LogCaptureFixture):
    """Who, when, through what, what, how many and why; the logger gets the same after the commit."""
    caplog.set_level(logging.INFO, logger="signalbus.audit")
    fails(signal, ValueError())
    signal.send(None)
    bus.work()
    failing = Delivery.objects.get(receiver="failing").pk
    assert run("log") == "Nobody has changed anything.\n"
    run("pause", "receiver:receiver", "--reason", "why")
    run("resume", "receiver:receiver", "--rate", "2/s")
    run("retry", failing, "--reason", "mended")
    run("discard", failing)
    with pytest.raises(CommandError):
        run("retry", uuid4())
    run("purge", "--days", "3")

    entries = json.loads(run("log", "--json"))["entries"]
    assert [(each["kind"], each["through"], each["state"], each["reason"]) for each in entries] == [
        ("purge", "command", "done", ""), ("retry", "command", "done", ""), ("discard", "command", "done", ""),
        ("retry", "command", "done", "mended"), ("resume", "command", "done", ""), ("pause", "command", "done", "why"),
    ]  # fmt: skip
    assert entries[3]["filter"] == {"deliveries": 1, "ids": [str(failing)]}
    assert [each["counts"] for each in entries[:5]] == [
        {"purged": 0}, {"retried": 0}, {"discarded": 1}, {"retried": 1}, {"held": 0},
    ]  # fmt: skip
    lines = run("log", "--kind", "pause").splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("(command)  pause receiver:receiver: why")
    assert run("log", "--by", "nobody") == "Nobody has changed anything.\n"
    told = [record for record in caplog.records if record.name == "signalbus.audit"]
    assert [record.__dict__["signalbus_operation"] for record in told] == [
        "pause", "resume", "retry", "discard", "retry", "purge",
    ]  # fmt: skip


def test_what_a_person_writes_cannot_forge_a_line_of_the_log(signal: Signal, caplog: pytest.LogCaptureFixture):
    """Line breaks and terminal escapes of a reason or a name are written as escapes; NUL is stored as one."""
    connect(signal, lambda **kwargs: None, "target")
    reason = "x\nINFO:signalbus.audit:signalbus: root (web): discard all \x1b[31m \u202e \x00"
    with caplog.at_level(logging.INFO, "signalbus.audit"):
        pausing.pause("receiver", "target", actor=Actor("a\nb", "code"), reason=reason)
        pausing.resume("receiver", "target", actor=Actor("a\nb", "code"), reason=reason)

    lines = [record.getMessage() for record in caplog.records if record.name == "signalbus.audit"]
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "discard all \\x1b[31m \\u202e" in lines[0]


def test_a_pause_that_is_rolled_back_leaves_no_line(signal: Signal, caplog: pytest.LogCaptureFixture):
    """The change, its row in the log and the line of the logger are one transaction."""
    caplog.set_level(logging.INFO, logger="signalbus.audit")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        pausing.pause("receiver", "receiver", actor=code_actor("job"))
        raise ZeroDivisionError
    assert not Pause.objects.exists()
    assert not Operation.objects.exists()
    assert not [record for record in caplog.records if record.name == "signalbus.audit"]


def change_everything(actor: Actor) -> dict[str, Callable[[], object]]:
    """Return each service that changes something."""
    return {
        "pause": lambda: pausing.pause("receiver", "receiver", actor=actor),
        "resume": lambda: pausing.resume("receiver", "receiver", actor=actor),
        "retry": lambda: delivery_changes.retry([], actor=actor),
        "discard": lambda: delivery_changes.discard([], actor=actor),
        "purge": lambda: delivery_changes.purge(actor=actor),
    }


def look_at_everything(actor: Actor) -> dict[str, Callable[[], object]]:
    """Return each service that shows something."""
    return {
        "paused": lambda: pausing.paused(actor),
        "failed": lambda: delivery_changes.failed(actor),
        "log": lambda: read_log(actor),
    }


def user_with(*permissions: str) -> Any:
    """Make a user with some permissions."""
    user = User.objects.create_user(f"u{uuid4().hex[:8]}")
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions, content_type__app_label="signalbus"))
    return User.objects.get(pk=user.pk)  # without the permissions that it remembers


def test_each_service_checks_its_permission(signal: Signal, caplog: pytest.LogCaptureFixture):
    """Anonymous and ordinary users may do nothing, viewers look, operators change; each refusal is logged."""
    ledger.pause("receiver", "receiver")
    inactive = user_with("view_delivery", "operate_delivery")
    inactive.is_active = False
    for user in (AnonymousUser(), user_with(), inactive):
        actor = user_actor(user)
        for service in (*change_everything(actor).values(), *look_at_everything(actor).values()):
            with pytest.raises(PermissionDenied, match=r"signalbus\.(view|operate)_delivery"):
                service()
    viewer = user_actor(user_with("view_delivery"), "admin")
    for service in look_at_everything(viewer).values():
        service()
    for service in change_everything(viewer).values():
        with pytest.raises(PermissionDenied):
            service()
    assert not Operation.objects.exists()
    assert "lacks the permission signalbus.operate_delivery" in caplog.text

    operator = user_with("view_delivery", "operate_delivery")
    for service in change_everything(user_actor(operator, "admin")).values():
        service()
    assert set(Operation.objects.values_list("by", "by_id", "through")) == {
        (operator.get_username(), str(operator.pk), "admin")
    }


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_must_be_above_zero(signal: Signal, rate: float):
    """Code may give any number."""
    pausing.pause("receiver", "receiver", actor=code_actor())
    with pytest.raises(ConfigurationError, match="The rate is"):
        pausing.resume("receiver", "receiver", actor=code_actor(), rate=rate)


@pytest.mark.parametrize("until", [timedelta(0), timedelta(seconds=-1), datetime(2030, 1, 1)])
def test_an_end_must_be_in_the_future_and_have_a_time_zone(signal: Signal, until: Any):
    """Code may give any time."""
    with pytest.raises(ConfigurationError):
        pausing.pause("receiver", "receiver", actor=code_actor(), until=until)
    with pytest.raises(ConfigurationError, match="cannot be paused"):
        pausing.pause("tag", "receiver", actor=code_actor())  # type: ignore[arg-type]  # from a form, say


@pytest.mark.parametrize("database", ["sqlite"])
def test_log_ends_without_an_error_when_its_pipe_is_closed(database: str, database_url: str, broker_url: str):
    """As with `head`."""
    Operation.objects.bulk_create(
        Operation(kind="pause", through="code", reason="x" * 200, created_at=datetime.now(UTC)) for _ in range(2000)
    )
    environment = {**os.environ, "DATABASE_URL": database_url, "CELERY_BROKER_URL": broker_url}
    shell = f"{sys.executable} manage.py signalbus log --limit 2000 | head -1"
    done = subprocess.run(shell, shell=True, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)

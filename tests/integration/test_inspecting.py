"""Signals, messages and deliveries as ``manage.py signalbus`` shows them."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from signalbus import Retry, Signal
from signalbus.ledger import operations as ledger
from signalbus.ledger.base.clock import LATEST, later
from signalbus.models import Delivery, RunningDelivery, State, StoredMessage
from tasks.admissions.models import Academy

from .bus import Bus, connect, fails, new_signal


def run(*arguments: object) -> str:
    """Run a subcommand, and return what it prints."""
    out = io.StringIO()
    call_command("signalbus", *map(str, arguments), stdout=out, stderr=out)
    return out.getvalue()


@pytest.fixture
def academy(bus: Bus) -> Academy:
    """A row that messages are about."""
    return Academy.objects.create(name="A", slug="a")


@pytest.fixture
def signal(bus: Bus) -> Signal:
    """A durable signal with a receiver that works and one that fails once."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    fails(signal, KeyError("slug"), "marketing.tag", retry=Retry(max_attempts=1))
    return signal


def test_list_shows_signals_with_their_receivers(signal: Signal):
    """Each receiver has its sender, queue, place and policy; it needs no broker and no database."""
    shown = run("list", signal.name)

    assert signal.name in shown
    assert "->  crm.sync  from any sender  in signalbus" in shown
    assert "in a transaction, 1 attempt" not in shown
    assert "one attempt" in shown
    (found,) = json.loads(run("list", signal.name, "--json"))["signals"]
    assert [each["id"] for each in found["receivers"]] == ["crm.sync", "marketing.tag"]


def test_list_orphans_names_the_signals_without_receivers(bus: Bus):
    """The exit code is 1 for scripts."""
    lonely = new_signal()

    with pytest.raises(CommandError, match="without a receiver"):
        run("list", lonely.name, "--orphans")
    connect(lonely, lambda **kwargs: None, "there")
    assert run("list", lonely.name, "--orphans") == ""


def test_explain_says_which_receivers_a_sender_reaches(signal: Signal):
    """A receiver of another sender is listed with the reason."""
    connect(signal, lambda **kwargs: None, "academies", sender=Academy)

    only_academies = new_signal()
    connect(only_academies, lambda **kwargs: None, "academies only", sender=Academy)
    with pytest.raises(CommandError, match=r"listen to other senders than admissions\.cohort"):
        run("explain", only_academies.name, "--sender", "admissions.cohort")

    shown = run("explain", signal.name, "--sender", "admissions.cohort")

    assert "->  crm.sync" in shown
    assert "no  academies  from admissions.Academy" in shown
    assert "not reached: it listens to admissions.Academy only" in shown
    assert "no  academies" not in run("explain", signal.name, "--sender", "admissions.academy")


def test_explain_fails_if_no_receiver_is_reached(bus: Bus):
    """The exit code is 1 for scripts, and the text says where to look."""
    lonely = new_signal()
    with pytest.raises(CommandError, match="Nobody receives it"):
        run("explain", lonely.name)


def test_bad_input_the_error_of_an_unknown_signal_suggests_a_name(signal: Signal):
    """A typo is told as such."""
    with pytest.raises(CommandError, match=f"did you mean .*{signal.name}"):
        run("explain", signal.name + "x")


def test_show_prints_a_message_with_its_deliveries(bus: Bus, signal: Signal, academy: Academy):
    """The payload, each delivery's state, error and traceback; secrets are hidden."""
    sent = signal.send(Academy, instance=academy, password="hunter2", note="\x1b[31mred")
    bus.work()
    failed = Delivery.objects.get(receiver="marketing.tag")

    shown = run("show", failed.pk)

    assert shown == run("show", sent.id)
    assert "state       dead (dead: retry or discard it)" in shown
    assert "state       done (done)" in shown
    assert "error       KeyError: 'slug'" in shown
    assert "Traceback" in shown
    assert f'instance: "admissions.Academy {academy.pk}"' in shown
    assert 'sender: "admissions.Academy"' in shown
    assert "hunter2" not in shown
    assert "\x1b" not in shown
    found = json.loads(run("show", failed.pk, "--json"))
    assert found["schema"] == 1
    assert found["payload"]["values"]["instance"] == f"admissions.Academy {academy.pk}"


def test_history_lists_what_happened_to_a_row(bus: Bus, signal: Signal, academy: Academy):
    """The messages about it, the oldest first, each with its deliveries; others are not listed."""
    other = Academy.objects.create(name="B", slug="b")
    ids = [signal.send(Academy, instance=each).id for each in (academy, other, academy)]
    bus.work()

    shown = run("history", f"admissions.academy:{academy.pk}")

    assert shown.index(str(ids[0])) < shown.index(str(ids[2]))
    assert str(ids[1]) not in shown
    assert shown.count("crm.sync  done") == 2
    assert shown.count("marketing.tag  dead  1 attempt") == shown.count("KeyError: 'slug'") == 2


def test_history_and_show_say_what_runs_now(bus: Bus, signal: Signal, academy: Academy):
    """A receiver that hangs in its transaction is published as far as other sessions see; its process says more."""
    message = signal.send(Academy, instance=academy).id
    hung = Delivery.objects.get(message=message, receiver="crm.sync")
    RunningDelivery.objects.create(
        worker="web-1:7", delivery=hung.pk, message=hung.message_id, signal=signal.name, receiver="crm.sync", attempt=1,
        started_at=later(-60), seen_at=later(-1),
    )  # fmt: skip

    shown = run("history", f"admissions.academy:{academy.pk}")
    assert re.search(r"crm\.sync  running since \S+ \S+ in web-1:7$", shown, re.MULTILINE)
    assert re.search(r"^runs        running since \S+ \S+ in web-1:7$", run("show", message), re.MULTILINE)
    (found,) = json.loads(run("history", f"admissions.academy:{academy.pk}", "--json"))["messages"]
    workers = {each["receiver"]: each["running"] and each["running"]["worker"] for each in found["deliveries"]}
    assert workers == {"crm.sync": "web-1:7", "marketing.tag": None}


def test_a_paused_delivery_shows_its_error_and_no_time(bus: Bus, signal: Signal, academy: Academy):
    """Why it failed stays visible while it is held; the time to which a pause moves it is no time to wait for."""
    message = signal.send(Academy, instance=academy).id
    Delivery.objects.filter(message=message, receiver="marketing.tag").update(
        state=State.HELD, held_reason="receiver:marketing.tag is paused", error="KeyError: 'slug'", attempts=1,
        due_at=later(LATEST),
    )  # fmt: skip

    shown = run("history", f"admissions.academy:{academy.pk}")

    assert "marketing.tag  held  1 attempt  receiver:marketing.tag is paused  KeyError: 'slug'" in shown
    assert "due at" not in shown + run("show", message)


def test_history_of_a_row_without_messages_says_why(bus: Bus):
    """An empty answer may have four reasons; the exit code is 1."""
    with pytest.raises(CommandError, match=r"no message about admissions.academy:7: none was sent, it is purged"):
        run("history", "admissions.academy:7")


def test_trace_shows_a_cascade_as_a_tree(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """From any message of a cascade, all of it is found, each under the message whose receiver sent it."""
    monkeypatch.setattr(ledger, "roots_recorded_since", lambda: None)
    parent, child, grandchild = (new_signal(durable=True) for _ in range(3))
    connect(parent, lambda **kwargs: child.send(None), "first")
    connect(child, lambda **kwargs: grandchild.send(None), "second")
    connect(grandchild, lambda **kwargs: None, "third")
    parent.send(None)
    for _ in range(3):
        bus.work()
    last = StoredMessage.objects.get(signal=grandchild.name)

    lines = run("trace", last.pk).splitlines()

    indents = [len(line) - len(line.lstrip()) for line in lines]
    assert indents == [0, 4, 4, 8, 8, 12]
    assert [line.split()[0] for line in lines[1::2]] == ["first", "second", "third"]
    tree = json.loads(run("trace", last.pk, "--json"))
    assert tree["children"][0]["children"][0]["id"] == str(last.pk)
    assert (tree["whole"], tree["scanned"]) == (True, False)


def test_bad_input_the_error_of_an_unknown_id_lists_the_reasons(bus: Bus):
    """The message may be purged, or may never have had a row."""
    with pytest.raises(CommandError, match="is not in the ledger: it is purged"):
        run("show", "0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b")


def test_failed_takes_a_filter(bus: Bus, signal: Signal, academy: Academy):
    """Words narrow what failed; a word with a state selects among all deliveries."""
    signal.send(Academy, instance=academy)
    bus.work()

    assert run("failed", "receiver:marketing.*").count("-> marketing.tag") == 1
    assert run("failed", "receiver:crm.*") == "Nothing matches receiver:crm.*.\n"
    assert run("failed", "receiver:crm.*", "state:done").count("-> crm.sync") == 1
    assert run("failed", f"subject:admissions.academy:{academy.pk}", "error:KeyError").count("KeyError") == 1
    assert run("failed", "since:1h", "--limit", "1").count("-> ") == 1
    assert json.loads(run("failed", "until:1h", "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["stat:dead"], "did you mean 'state'"),
        (["state:dead", "--state", "dead"], "Name the state once"),
        (["--limit", "0"], "it must be at least 1"),
    ],
)
def test_bad_input_a_wrong_filter_is_an_error_of_the_command(bus: Bus, arguments: list[Any], remedy: str):
    """A typo ends the command with one line."""
    with pytest.raises(CommandError, match=remedy):
        run("failed", *arguments)


def test_failures_are_grouped_by_their_cause(bus: Bus, signal: Signal, academy: Academy):
    """One line for each cause, the largest group first; a group can be listed."""

    def other(**kwargs: Any) -> None:
        raise ValueError(f"for {kwargs['number']}")

    connect(signal, other, "other", retry=Retry(max_attempts=3))
    for number in range(3):
        signal.send(Academy, instance=academy, number=number)
    bus.work()

    groups = json.loads(run("failed", "--group", "--json"))["groups"]

    assert [(group["receiver"], group["count"], group["states"]) for group in groups] in (
        [("marketing.tag", 3, {"dead": 3}), ("other", 3, {"pending": 3})],
        [("other", 3, {"pending": 3}), ("marketing.tag", 3, {"dead": 3})],
    )
    one = next(group["group"] for group in groups if group["receiver"] == "other")
    shown = run("failed", "--group")
    assert f"{one}  3 pending  {signal.name} -> other" in shown
    assert "3 failed attempts, 20" in shown
    assert run("failed", f"group:{one}").count("-> other") == 3
    assert run("failed", f"group:{one}").count("-> marketing.tag") == 0
    assert run("failed", "--group", "--limit", "1").count("->") == 1
    with pytest.raises(CommandError, match="--group prints no tracebacks"):
        run("failed", "--group", "--traceback")
    assert run("failed", "--group", "--state", "dead").count("->") == 1
    assert run("failed", "--group", "receiver:nobody") == "Nothing matches receiver:nobody.\n"


def test_show_lists_the_failed_attempts_of_a_delivery_that_succeeded(bus: Bus):
    """A retry that succeeds does not erase what failed before it."""
    signal = new_signal(durable=True)
    answers = iter([ConnectionError("away"), ConnectionError("still away"), None])

    def flaky(**kwargs: Any) -> None:
        if (error := next(answers)) is not None:
            raise error

    connect(signal, flaky, "flaky")
    sent = signal.send(None)
    bus.work()
    bus.come_again()
    bus.come_again()

    shown = run("show", sent.id)

    assert "state       done (done)" in shown
    assert [line.split("  ")[0] for line in shown.splitlines() if line.startswith("attempt ")] == [
        "attempt 1", "attempt 2",
    ]  # fmt: skip
    assert "ConnectionError: still away" in shown
    (delivery,) = json.loads(run("show", sent.id, "--json"))["deliveries"]
    assert [each["error"] for each in delivery["failed_attempts"]] == [
        "ConnectionError: away", "ConnectionError: still away",
    ]  # fmt: skip


def test_retry_and_discard_take_a_filter(bus: Bus, signal: Signal, academy: Academy):
    """The oldest first, limited, as a rehearsal with --dry-run; the audit log has the filter."""
    for _ in range(3):
        signal.send(Academy, instance=academy)
    bus.work()
    dead = list(Delivery.objects.filter(state="dead").order_by("id").values_list("id", flat=True))

    assert f"retry would be asked of 3 deliveries.\n    {dead[0]}" in run("retry", "receiver:marketing.*", "--dry-run")
    assert Delivery.objects.filter(state="dead").count() == 3
    assert run("retry", "receiver:marketing.*", "--limit", "1") == "1 delivery due again.\n"
    assert Delivery.objects.get(id=dead[0]).state == "pending"
    assert run("retry", "--all", "--limit", "1", "--dry-run").startswith("retry would be asked of 1 delivery.")
    assert run("discard", "state:dead", "error:KeyError", "--reason", "no use") == "2 deliveries discarded.\n"
    assert set(Delivery.objects.filter(state="discarded").values_list("id", flat=True)) == set(dead[1:])
    assert "state:dead error:KeyError" in run("log", "--kind", "discard")
    assert Delivery.objects.filter(receiver="crm.sync", state="done").count() == 3


def test_retry_can_be_spread_over_time(bus: Bus, signal: Signal, academy: Academy):
    """With a rate, the deliveries become due one after the other, the oldest first."""
    for _ in range(5):
        signal.send(Academy, instance=academy)
    bus.work()

    run("retry", "receiver:marketing.*", "--rate", "120/m")

    due = list(Delivery.objects.filter(state="pending").order_by("id").values_list("due_at", flat=True))
    steps = [round((moment - due[0]).total_seconds()) for moment in due]
    assert steps == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["state:dead", "0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b"], "not both"),
        (["nonsense"], "'nonsense' is no id"),
        (["0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b", "--limit", "1"], "--limit is for a filter or --all"),
        (["state:dead", "--limit", "0"], "it must be at least 1"),
        (["stat:dead"], "did you mean 'state'"),
    ],
)
def test_bad_input_a_wrong_selection_changes_nothing(bus: Bus, arguments: list[Any], remedy: str):
    """Each way to say it wrongly is told."""
    for command in ("retry", "discard"):
        with pytest.raises(CommandError, match=remedy):
            run(command, *arguments)


@pytest.mark.skipif(not connection.features.supports_partial_indexes, reason="MariaDB has no partial indexes")
def test_dead_deliveries_are_found_by_an_index(bus: Bus):
    """A list of one state reads no delivery that is done."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # which is quicker for no rows at all
        plan = Delivery.objects.filter(state="dead").order_by("-id")[:100].explain()

    assert "signalbus_found" in plan

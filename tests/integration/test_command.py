"""``manage.py signalbus`` lists, retries and discards failed deliveries, for people and for programs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.test import override_settings
from kombu import Connection

from signalbus import Retry, Signal
from signalbus.celery import get_app
from signalbus.checks import unsent, unused_code
from signalbus.ledger import sweeps as ledger
from signalbus.models import Delivery, StoredMessage
from signalbus.receiving.routing.batch import deliver
from tasks.admissions.models import Academy
from tests.servers import broker, wait_until

from .bus import QUEUE, Bus, connect, fails, new_signal, only, rows


@pytest.fixture
def repaired() -> list[Any]:
    """Fill the list, and the receiver does not fail any more."""
    return []


@pytest.fixture
def signal(repaired: list[Any]) -> Signal:
    """A signal with a receiver that may fail three times."""
    signal = new_signal()

    def receiver_that_raises(**kwargs):
        if not repaired:
            raise ValueError("first line\nsecond line \x1b[31mred")

    connect(signal, receiver_that_raises, "failing", retry=Retry(max_attempts=3))
    return signal


@pytest.fixture
def dead(bus: Bus, signal: Signal) -> Delivery:
    """A delivery whose attempts are used up."""
    signal.send(None)
    bus.work()
    bus.come_again()
    bus.come_again()
    row = only()
    assert (row.state, row.attempts) == ("dead", 3)
    return row


def run(*arguments: object) -> str:
    """Run the command, and return what it prints."""
    out = io.StringIO()
    call_command("signalbus", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_failed_says_that_nothing_has_failed(bus: Bus):
    """Without failures the list is a sentence, and an empty list for programs."""
    assert run("failed") == "Nothing has failed.\n"
    assert json.loads(run("failed", "--json")) == []
    assert run("failed", "--state", "dead") == "Nothing is dead.\n"


def test_failed_is_a_table_with_counts(bus: Bus, dead: Delivery, signal: Signal):
    """Each line has id, state, attempts, time, signal and receiver, and the error in one line; the counts follow."""
    signal.send(None)
    bus.work()
    deliver(["garbage"], queue=QUEUE)

    shown = run("failed")

    assert f"{dead.pk}  dead           3" in shown
    assert f"{signal.name} -> failing" in shown
    assert r"ValueError: first line\nsecond line \x1b[31mred" in shown
    assert "refused or unopened text" in shown
    assert "3 in all: 2 dead (dead: retry or discard it); 1 pending (published when it is due)." in shown
    assert "Traceback" not in shown
    assert "Traceback" in run("failed", "--traceback")
    assert run("failed", "--state", "pending").count("-> failing") == 1


def test_failed_ends_with_the_number_of_skipped_deliveries(bus: Bus, signal: Signal):
    """Nothing has failed, but receivers did not run: the line says how many, and how to list them."""
    for number in range(2):
        academy = Academy.objects.create(name="A", slug=f"a{number}")
        signal.send(None, instance=academy)
        academy.delete()
    bus.work()

    gone = "2 skipped because their row was not found: failed --state skipped lists them\n"
    assert run("failed") == f"Nothing has failed.\n{gone}"
    assert run("failed", "--state", "skipped").count("MissingRow") == 2
    assert "because" not in run("failed", "--state", "skipped").splitlines()[-1]
    unheard = new_signal(open=True)
    unheard.send(None)
    bus.work()
    deliver(["garbage"], queue=QUEUE)
    nobody = "1 skipped because nobody received it: failed --state skipped lists them\n"
    assert run("failed").endswith(f"says more.\n{gone}{nobody}")
    assert "(whoever listens)" not in run("failed")


def test_failed_says_when_the_next_attempt_is(bus: Bus, signal: Signal):
    """`failed` prints the time for retries and unpublished deliveries, not for dead ones."""
    signal.send(None)
    bus.work()
    row = only()
    when = row.due_at.strftime("%Y-%m-%d %H:%M:%S")
    assert row.failed_at is not None
    assert row.due_at > row.failed_at
    assert f"second line \\x1b[31mred\n    due again at {when} (UTC)\n" in run("failed")
    bus.come_again()
    bus.come_again()
    assert only().state == "dead"
    assert "due" not in run("failed")
    with broker("redis://127.0.0.1:1/0"):
        signal.send(None)
    due = Delivery.objects.get(state="pending").due_at.strftime("%Y-%m-%d %H:%M:%S")
    assert f"    due again at {due} (UTC)\n" in run("failed")


def test_failed_says_what_helps_a_parked_delivery(bus: Bus):
    """Workers with the newer code take it once they run."""
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "count")
    signal.send(None)
    signal.disconnect(dispatch_uid="count")
    bus.work()
    due = only().due_at.strftime("%Y-%m-%d %H:%M:%S")
    hint = "restart the workers if their code is older than the sender's"
    assert f"    due again at {due} (UTC); {hint}\n" in run("failed")


def test_failed_shows_the_unverified_names_of_a_text_of_an_unknown_key(bus: Bus, signal: Signal, settings: Any):
    """No worker here can verify it: its signal and receiver are those that it claims."""
    with override_settings(SECRET_KEY="another" * 9):
        signal.send(None)
    bus.work()
    shown = run("failed")
    assert f"unopened text, by its looks {signal.name} to failing\n    signed with key " in shown
    assert shown.count("(UTC)\n") == 1
    assert "restart the workers" not in shown


def test_failed_json_is_a_list_of_objects(bus: Bus, dead: Delivery, signal: Signal):
    """Each has at least id, signal, receiver, attempts, error and failed_at."""
    (shown,) = json.loads(run("failed", "--json"))

    assert shown["id"] == str(dead.pk)
    assert (shown["signal"], shown["receiver"], shown["attempts"]) == (signal.name, "failing", 3)
    assert shown["error"].startswith("ValueError: first line")
    assert dead.failed_at is not None
    assert shown["failed_at"] == dead.failed_at.isoformat()
    assert shown["state"] == "dead"
    assert shown["subject"] == ""
    assert shown["runtime_ms"] >= 0
    assert {"started_at", "worker"} <= shown.keys()


def test_failed_shows_the_instance_of_a_message(bus: Bus, repaired: list[Any]):
    """`failed` shows label and key of a row; the JSON also has when and where the delivery ran."""
    durable = new_signal(durable=True)

    def receiver_that_raises(**kwargs):
        raise ValueError

    connect(durable, receiver_that_raises, "failing", atomic=False)
    academy = Academy.objects.create(name="A", slug="a")
    durable.send(None, instance=academy)
    durable.send(None, instance="none")
    bus.work()

    assert f"{durable.name} -> failing about admissions.Academy {academy.pk}\n" in run("failed")
    shown = {item["subject"]: item for item in json.loads(run("failed", "--json"))}
    assert shown.keys() == {"", f"admissions.Academy {academy.pk}"}
    assert shown[""]["worker"]
    assert shown[""]["started_at"]


def test_promise_5_retry_allows_all_attempts_again(bus: Bus, dead: Delivery, repaired: list[Any]):
    """The delivery is due at once, attempts go on counting, and it gets as many new ones as the policy says."""
    assert run("retry", dead.pk) == "1 delivery due again.\n"
    assert run("sweep") == "1 deliveries published.\n"
    bus.work()
    bus.come_again()
    assert rows() == [("failing", "pending", 5)]
    bus.come_again()
    assert rows() == [("failing", "dead", 6)]

    repaired.append(1)
    run("retry", "--all")
    bus.come_again()

    assert rows() == [("failing", "done", 7)]
    assert run("failed") == "Nothing has failed.\n"


def test_retry_all_retries_failed_deliveries_but_no_refused_texts(bus: Bus, dead: Delivery):
    """The signature of a refused text was not verified; a delivery that waits is due at once."""
    deliver(["garbage"], queue=QUEUE)

    assert run("retry", "--all") == "1 delivery due again.\n"

    assert rows() == [("", "dead", 1), ("failing", "pending", 3)]


def test_retry_needs_ids_or_all(bus: Bus):
    """With neither or both, the error says what to give."""
    with pytest.raises(CommandError, match="Say which"):
        run("retry")
    with pytest.raises(CommandError, match="Say which"):
        run("retry", "--all", uuid4())


@pytest.mark.parametrize("action", ["retry", "discard"])
def test_an_unknown_id_is_an_error_and_the_others_are_done(bus: Bus, dead: Delivery, action: str):
    """The exit code tells that one was not found."""
    with pytest.raises(CommandError, match="1 of 2 left alone: not in the ledger"):
        run(action, dead.pk, uuid4())

    assert only().state == ("pending" if action == "retry" else "discarded")


@pytest.mark.parametrize("action", ["retry", "discard"])
def test_an_invalid_id_is_named(bus: Bus, action: str):
    """The error quotes it, and says where ids come from."""
    with pytest.raises(CommandError, match="'nonsense' is no id"):
        run(action, "nonsense")


def test_an_id_given_twice_counts_once(bus: Bus, dead: Delivery):
    """A pasted list may have duplicates."""
    assert run("retry", dead.pk, dead.pk) == "1 delivery due again.\n"


def test_a_discarded_delivery_is_never_published_again(bus: Bus, dead: Delivery):
    """A discarded delivery is not listed as failed, and stays visible until it is purged; the same holds for refused
    texts.
    """
    deliver(["garbage"], queue=QUEUE)
    ids = list(Delivery.objects.values_list("id", flat=True))

    assert run("discard", *ids) == "2 deliveries discarded.\n"

    assert run("failed") == "Nothing has failed.\n"
    assert bus.come_again() == 0
    assert [state for _, state, _ in rows()] == ["discarded", "discarded"]
    assert run("failed", "--state", "discarded").count("discarded") >= 2


def test_a_discarded_delivery_is_retried_by_its_id_only(bus: Bus, dead: Delivery, repaired: list[Any]):
    """`retry --all` leaves it alone: a person decided that it must not run."""
    repaired.append(1)
    run("discard", dead.pk)

    assert run("retry", "--all") == "0 deliveries due again.\n"
    assert bus.come_again() == 0
    assert only().state == "discarded"

    assert run("retry", dead.pk) == "1 delivery due again.\n"
    bus.come_again()
    assert rows() == [("failing", "done", 4)]
    assert only().ended_at is not None


def test_a_running_delivery_is_neither_retried_nor_discarded(bus: Bus, dead: Delivery):
    """A worker runs it."""
    Delivery.objects.update(state="running")

    for action in ("retry", "discard"):
        with pytest.raises(CommandError, match="running now"):
            run(action, dead.pk)

    assert only().state == "running"


def test_purge_deletes_old_ended_deliveries(bus: Bus, dead: Delivery, signal: Signal, repaired: list[Any]):
    """These are done, skipped or discarded, and older than KEEP_SECONDS or --days; never dead or waiting."""
    signal.send(None)
    bus.work()
    repaired.append(1)
    bus.come_again()
    assert [state for _, state, _ in rows()] == ["dead", "done"]
    assert run("purge") == "0 deliveries purged.\n"
    Delivery.objects.update(ended_at=F("ended_at") - timedelta(days=8))

    assert run("purge", "--days", 9) == "0 deliveries purged.\n"
    assert run("purge", "--days", 1e12) == "0 deliveries purged.\n"
    assert run("purge") == "1 deliveries purged.\n"

    assert rows() == [("failing", "dead", 3)]
    assert StoredMessage.objects.count() == 1


def test_purge_goes_in_small_batches(bus: Bus, signal: Signal, repaired: list[Any]):
    """No sender waits long for it; a message stays with all its deliveries as long as one has not ended."""
    connect(signal, lambda **kwargs: None, "beside")
    with broker("redis://127.0.0.1:1/0"):
        for _ in range(5):
            signal.send(None)
    bus.come_again()
    Delivery.objects.update(ended_at=F("ended_at") - timedelta(days=8))
    assert ledger.purge(3600, batch=2) == 0
    assert rows() == [("beside", "done", 1)] * 5 + [("failing", "pending", 1)] * 5

    repaired.append(1)
    bus.come_again()
    Delivery.objects.update(ended_at=F("ended_at") - timedelta(days=8))
    assert ledger.purge(3600, batch=2) == 10

    assert rows() == []
    assert not StoredMessage.objects.exists()


def test_sweep_without_a_broker_is_an_error(bus: Bus, dead: Delivery):
    """The exit code says so, and the text says what to look at."""
    run("retry", dead.pk)
    with broker("redis://127.0.0.1:1/0"), pytest.raises(CommandError, match="CELERY_BROKER_URL"):
        run("sweep")

    assert only().state == "pending"


def test_a_sub_command_is_needed(bus: Bus):
    """`manage.py signalbus` alone lists the sub-commands."""
    with pytest.raises(CommandError, match="COMMAND"):
        call_command("signalbus")


def test_times_are_in_utc(bus: Bus, dead: Delivery):
    """The list is in UTC in any time zone, as its heading says."""
    assert dead.failed_at is not None
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        shown = run("failed")

    assert "FAILED AT (UTC)" in shown
    assert dead.failed_at.strftime("%Y-%m-%d %H:%M:%S") in shown


def test_status_says_how_messages_are_published(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch):
    """`status` says it for each queue, with the reason if Celery publishes the messages."""
    connect(signal, lambda **kwargs: None, "mailer", queue="mail")
    assert "signalbus: written to Redis directly" in run("status")
    assert "mail: written to Redis directly" in run("status")

    with broker("memory://"):
        assert "mail: through Celery: kombu.transport.memory.Transport is not made of" in run("status")


@pytest.mark.parametrize("address", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_status_reports_an_absent_broker(bus: Bus, signal: Signal, monkeypatch: pytest.MonkeyPatch, address: str):
    """`status` prints the facts of the ledger and of the code first, then the setting to look at, as an error."""
    monkeypatch.setattr(unused_code, "modules_not_imported", lambda: ["shop.handlers (/shop/handlers.py:3)"])
    connect(signal, lambda **kwargs: None, "count", queue="tills")
    out = io.StringIO()
    with broker(address):
        signal.send(None)
        with pytest.raises(CommandError) as caught:
            call_command("signalbus", "status", stdout=out)
    assert str(caught.value).startswith("signalbus: the broker cannot be asked: ")
    assert str(caught.value).endswith(f". Is CELERY_BROKER_URL ({address!r}) right, and does the broker run?")
    shown = out.getvalue()
    assert "tills:\n    1 delivery in the ledger, the oldest since 20" in shown
    assert "worker" not in shown
    assert "shop.handlers" in shown


def test_status_reports_an_app_that_cannot_be_imported(bus: Bus, settings: Any):
    """The error of the app has the remedy; no address is named."""
    get_app.cache_clear()
    settings.SIGNALBUS = {**settings.SIGNALBUS, "CELERY_APP": "no_such:app"}
    try:
        with pytest.raises(CommandError) as caught:
            run("status")
    finally:
        get_app.cache_clear()
    assert "SIGNALBUS[\"CELERY_APP\"] is 'no_such:app'" in str(caught.value)
    assert "does the broker run" not in str(caught.value)


class TestWorkersInStatus:
    """``status`` and ``failed`` say whether a worker consumes each queue."""

    def test_status_without_a_worker_says_what_waits(self, bus: Bus):
        """Each queue says how much waits, since when, and that no worker consumes it; ``failed`` refers to it."""
        signal = new_signal(durable=True)
        connect(signal, lambda **kwargs: None, "count")
        signal.send(None)
        shown = run("status")
        assert "1 message waits on the broker, 1 delivery in the ledger, the oldest since 20" in shown
        assert "NO WORKER consumes it; none has been heard of lately. Start one: celery -A signalbus worker" in shown
        shown = run("failed")
        assert "Nothing has failed.\nBut in signalbus 1 message waits on the broker" in shown
        assert "no worker consumes it: `manage.py signalbus status` says more." in shown
        bus.work()
        assert "signalbus: " in run("status")
        assert "0 messages wait on the broker, 0 deliveries in the ledger\n" in run("status")
        assert "NO WORKER consumes it; one was last heard of at 20" in run("status")
        assert run("failed") == "Nothing has failed.\n"

    def test_failed_parked_and_dead_deliveries_are_counted(self, bus: Bus):
        """`status` counts them separately, and refers to `failed`."""
        assert "failed and wait" not in run("status")
        signal = new_signal(durable=True)
        fails(signal, ValueError("no"), retry=Retry(max_attempts=1))
        fails(signal, ValueError("not yet"), "failing_twice", retry=Retry(max_attempts=2, base_delay=60))
        connect(signal, lambda **kwargs: None, "unknown_here")
        signal.send(None)
        signal.disconnect(dispatch_uid="unknown_here")
        bus.work()

        expected = (
            "1 failed and wait for their next attempt, 1 parked, 1 dead: `manage.py signalbus failed` lists them."
        )
        assert expected in run("status")

    def test_status_shows_the_queue_of_a_receiver(self, bus: Bus):
        """A queue that a receiver names has lines of its own, and so does one that no receiver names any more."""
        signal = new_signal(durable=True)
        connect(signal, lambda **kwargs: None, "count", queue="tills")
        signal.send(None)
        bus.client.client_setname("signalbus:signalbus")
        assert "But in tills 1 message waits" in run("failed")
        signal.disconnect(dispatch_uid="count")
        assert "But in tills 1 message waits" in run("failed")
        lines = run("status").splitlines()
        at = next(number for number, line in enumerate(lines) if line.startswith("tills: "))
        assert "NO WORKER" in lines[at + 2]

    def test_status_finds_a_worker_that_claims(self, bus: Bus):
        """A worker that claims is found by the name of its connection, which lists its queues."""
        signal = new_signal(durable=True)
        connect(signal, lambda **kwargs: None, "count")
        signal.send(None)
        bus.client.client_setname("signalbus:mails%2C1,signalbus")
        assert "    consumed by 1 worker\n" in run("status")
        assert run("failed") == "Nothing has failed.\n"
        bus.client.client_setname("signalbus:mails")
        assert "NO WORKER" in run("status")

    def test_a_worker_with_kombus_transport(self, bus: Bus):
        """Such a worker does not name its queues: only messages that wait for a minute without a sign of a worker are
        reported.
        """
        signal = new_signal(durable=True)
        connect(signal, lambda **kwargs: None, "count")
        signal.send(None)
        waiting = threading.Thread(target=lambda: bus.client.brpop("another"), daemon=True)
        waiting.start()
        try:
            wait_until(lambda: "cannot be told" in run("status"), what="it to wait")
            assert run("failed") == "Nothing has failed.\n"
            Delivery.objects.update(created_at=F("created_at") - timedelta(minutes=2))
            assert "But in signalbus 1 message waits" in run("failed")
        finally:
            bus.client.lpush("another", "end")
            waiting.join(10)

    def test_failed_during_an_outage_of_the_broker(self, bus: Bus):
        """``failed`` says so for each queue, succeeds, and waits for the broker once."""
        signal = new_signal()
        connect(signal, lambda **kwargs: None, "count", queue="tills")
        with (
            broker("redis://127.0.0.1:1/0"),
            patch.object(Connection, "channel", autospec=True, side_effect=Connection.channel) as opened,
        ):
            shown = run("failed")
        for queue in ("signalbus", "tills"):
            assert f"{queue}: the broker cannot be asked whether anything waits" in shown
        assert shown.count("Is CELERY_BROKER_URL ('redis://127.0.0.1:1/0') right, and does the broker run?") == 1
        assert opened.call_count == 1

    def test_status_names_unused_code(self, bus: Bus, monkeypatch: pytest.MonkeyPatch):
        """These are modules that nothing imports, and signals without receivers."""
        monkeypatch.setattr(unused_code, "modules_not_imported", lambda: ["shop.handlers (/shop/handlers.py:3)"])
        monkeypatch.setattr(unused_code, "signals_without_receivers", lambda: ["shop.sold", "shop.bought"])
        monkeypatch.setattr(unsent, "receivers_without_sends", lambda: ["on_sale listens to auth.Group"])
        shown = run("status")
        assert "on_sale listens to auth.Group: it receives nothing.\n" in shown
        assert "shop.handlers (/shop/handlers.py:3) connects receivers and is not imported" in shown
        assert "Nobody is connected to shop.sold, shop.bought." in shown


MANY_ROWS = """
import sys, uuid, django
from django.conf import settings
settings.configure(SECRET_KEY="x" * 60, USE_TZ=True, CELERY_BROKER_URL="memory://",
                   INSTALLED_APPS=["django.contrib.contenttypes", "signalbus"],
                   DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from django.core.management import call_command, execute_from_command_line
from django.utils import timezone
from signalbus.models import Delivery, StoredMessage
call_command("migrate", verbosity=0)
ids = [uuid.uuid4() for _ in range(1000)]
now = timezone.now()
StoredMessage.objects.bulk_create(StoredMessage(id=id_, signal="shop.sold", text="", created_at=now) for id_ in ids)
Delivery.objects.bulk_create(
    Delivery(id=uuid.uuid4(), message_id=id_, receiver="x" * 99, state="dead", due_at=now, created_at=now)
    for id_ in ids
)
execute_from_command_line(["manage.py", "signalbus", "failed", *sys.argv[1:]])
"""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_failed_ends_without_an_error_when_its_pipe_is_closed(options: list[str]):
    """``failed | head -1`` prints no traceback, and no word about a broken pipe."""
    command = [sys.executable, "-c", MANY_ROWS, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_failed_prints_no_empty_line(bus: Bus, signal: Signal):
    """A row without an error is one line."""
    connect(signal, lambda **kwargs: None, "beside")
    with broker("redis://127.0.0.1:1/0"):
        signal.send(None)
    bus.come_again()
    shown = run("failed", "--state", "done")
    assert "beside" in shown
    assert all(line.strip() for line in shown.rstrip("\n").splitlines() if "in all" not in line and line)
    assert "    \n" not in shown

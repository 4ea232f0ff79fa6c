"""Alerts: a condition that needs a person is kept once, with its beginning and its end, and people are told of both."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections import deque
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.core import mail
from django.db import connection, transaction
from django.db.models import F
from django.test import override_settings
from django.urls import path
from django.utils import timezone
from django.utils.translation import override

from signalbus import Retry, Signal, alert
from signalbus.core.error_groups import group_of_fate
from signalbus.ledger import history, operations
from signalbus.models import Alert, Delivery, Key, State, WorkerRecord
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.alert_notices import THREAD, AlertNotices, page_of
from signalbus.receiving.sweeping.history_maintenance import maintain_history
from signalbus.receiving.sweeping.sweeper import Purge
from signalbus.web.alert_texts import alert_text, alert_title
from tasks.marketing.models import FormEntry

from .admin_site import add_delivery
from .bus import QUEUE, Bus, connect, fails, new_signal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ONCE = Retry(max_attempts=1)


def open_alerts() -> list[tuple[str, str]]:
    """Return kind and key of the alerts that are not over."""
    return sorted(Alert.objects.filter(cleared_at=None).values_list("kind", "key"))


def worker(name: str, digest: str, queues: Sequence[str] = ()) -> None:
    """Record a worker that has run for an hour."""
    described: dict[str, Any] = {"host": name, "pid": 1, "pool": "solo", "concurrency": 1, "registry_digest": digest}
    described["queues"] = list(queues)
    history.record_worker(name, described)
    WorkerRecord.objects.update(started_at=F("seen_at") - timedelta(hours=1))


def test_a_group_of_dead_deliveries_is_an_alert_until_none_is_dead(
    bus: Bus, signal: Signal, caplog: pytest.LogCaptureFixture
):
    """It is logged when it begins and when it ends, and once, however many follow."""
    fails(signal, ValueError("bad"), retry=ONCE)
    signal.send(None)
    bus.work()
    with caplog.at_level(logging.INFO, "signalbus"):
        caplog.clear()
        maintain_history()
        signal.send(None)
        bus.work()
        maintain_history()

        dead = Delivery.objects.filter(state=State.DEAD)
        assert open_alerts() == [("dead", dead[0].error_group)]
        assert "2 deliveries to failing are dead: ValueError: bad" in Alert.objects.get().text
        operations.discard([row.pk for row in dead])
        maintain_history()
        maintain_history()

    assert open_alerts() == []
    assert Alert.objects.get().cleared_at is not None
    said = [record.getMessage().partition(":")[0] for record in caplog.records if " alert " in record.getMessage()]
    assert said == ["signalbus alert (dead)", "signalbus alert is over (dead)"]


def test_two_causes_are_two_alerts(bus: Bus):
    """A bug does not hide another."""
    signals = [new_signal(), new_signal()]
    for signal, error in zip(signals, (ValueError("bad"), KeyError("worse")), strict=True):
        fails(signal, error, retry=ONCE)
        signal.send(None)
    bus.work()

    history.judge_alerts()

    assert [kind for kind, _ in open_alerts()] == ["dead", "dead"]


def test_deliveries_that_wait_for_long_are_an_alert_of_their_queue(bus: Bus):
    """As when no worker consumes it."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "mail", queue="email")
    signal.send(None)
    history.judge_alerts()
    assert open_alerts() == []

    Delivery.objects.update(due_at=F("due_at") - timedelta(minutes=6))
    worker("a", "00", queues=["email"])
    history.judge_alerts()
    assert open_alerts() == [("overdue", "email")]
    bus.work("email")
    history.judge_alerts()
    assert open_alerts() == []


def test_parked_deliveries_are_an_alert(bus: Bus, signal: Signal):
    """Parked deliveries need a worker with newer code."""
    connect(signal, lambda **kwargs: None, "gone")
    signal.send(None)
    signal.disconnect(dispatch_uid="gone")
    bus.work()

    history.judge_alerts()

    assert open_alerts() == [("parked", "")]


def test_workers_that_know_different_receivers_are_an_alert_after_a_rollout(database_url: str):
    """During a roll-out, different receivers are expected."""
    worker("a", "00")
    worker("b", "00")
    history.judge_alerts()
    assert open_alerts() == []
    worker("c", "11")
    WorkerRecord.objects.filter(name="c").update(started_at=F("seen_at"))
    history.judge_alerts()
    assert open_alerts() == []

    WorkerRecord.objects.update(started_at=F("seen_at") - timedelta(hours=1))
    history.judge_alerts()
    assert open_alerts() == [("skew", "")]
    history.forget_worker("c")
    history.judge_alerts()
    assert open_alerts() == []


def test_a_queue_that_no_worker_consumes_is_an_alert_after_a_minute(bus: Bus):
    """Two queues wait, and one of them has a worker, so only the other needs one."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "mail", queue="email")
    connect(signal, lambda **kwargs: None, "default")
    signal.send(None)
    Delivery.objects.update(due_at=F("due_at") - timedelta(seconds=90))
    worker("a", "00", queues=[QUEUE])

    history.judge_alerts()

    assert open_alerts() == [("workers", "email")]
    assert Alert.objects.get().text == "No worker consumes email; deliveries that wait in it: 1."
    worker("b", "00", queues=["email"])
    history.judge_alerts()
    assert open_alerts() == []


def test_refused_texts_are_a_warning_of_their_own(bus: Bus):
    """They are no failures of a receiver; it is over when they are discarded."""
    deliver(["garbage", "garbage", "rubbish"], queue=QUEUE)

    history.judge_alerts()

    assert open_alerts() == [("refused", "")]
    assert Alert.objects.get().text.endswith("nobody with a key wrote them: 3.")
    operations.discard([row.pk for row in Delivery.objects.all()])
    history.judge_alerts()
    assert open_alerts() == []


@pytest.fixture
def heard() -> Iterator[list[tuple[str, str, bool]]]:
    """The Django signals of alerts: kind, level, raised; each is also written to the ledger's database."""
    heard: list[tuple[str, str, bool]] = []

    def hear(sender: str, kind: str, level: str, raised: bool, **kwargs: Any) -> None:
        assert (sender, set(kwargs)) == (kind, {"signal", "key", "text", "url"})
        heard.append((kind, level, raised))
        FormEntry.objects.create(kind="alert", subject=f"{kind} {raised}", pid=0)

    alert.connect(hear)
    yield heard
    alert.disconnect(hear)


def park_one(bus: Bus, signal: Signal) -> None:
    """Make a delivery that no worker knows."""
    connect(signal, lambda **kwargs: None, "gone")
    signal.send(None)
    signal.disconnect(dispatch_uid="gone")
    bus.work()


def test_a_django_signal_is_sent_when_an_alert_begins_and_when_it_ends(bus: Bus, signal: Signal, heard):
    """Once each, however often it is judged."""
    park_one(bus, signal)
    maintain_history()
    maintain_history()
    assert heard == [("parked", "warning", True)]

    Delivery.objects.all().delete()
    maintain_history()
    maintain_history()

    assert heard == [("parked", "warning", True), ("parked", "warning", False)]


def test_what_a_receiver_of_an_alert_writes_is_committed_with_the_alert(bus: Bus, signal: Signal, heard):
    """A sweeper that is lost before the commit leaves neither; the next one sends the signal again."""
    park_one(bus, signal)
    with pytest.raises(KeyboardInterrupt), transaction.atomic():
        maintain_history()
        raise KeyboardInterrupt
    assert (open_alerts(), FormEntry.objects.count()) == ([], 0)

    maintain_history()

    assert open_alerts() == [("parked", "")]
    assert FormEntry.objects.get().subject == "parked True"


@pytest.mark.parametrize("error", ["of the database", "of Python"])
def test_a_receiver_of_alerts_that_raises_undoes_no_alert(bus: Bus, signal: Signal, heard, caplog, error: str):
    """Its error is logged; after one of the database what receivers wrote about this alert is undone."""

    def raises(**kwargs: Any) -> None:
        if error == "of Python":
            raise ValueError("bad")
        with connection.cursor() as cursor:
            cursor.execute("SELECT no_such_column FROM signalbus_alert")

    alert.connect(raises)
    park_one(bus, signal)
    try:
        maintain_history()
    finally:
        alert.disconnect(raises)

    assert open_alerts() == [("parked", "")]
    assert "raises" in caplog.text
    assert FormEntry.objects.count() == (1 if error == "of Python" else 0)


def test_conditions_are_judged_each_half_minute(bus: Bus, signal: Signal):
    """By one sweeper of all workers: the one whose turn comes first."""
    Purge().step()
    park_one(bus, signal)
    Purge().step()
    assert open_alerts() == []

    Key.objects.update(used_at=F("used_at") - timedelta(seconds=31))
    Purge().step()

    assert open_alerts() == [("parked", "")]


JUDGE = """
import django; django.setup()
from signalbus import alert
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.sweeping.alert_notices import AlertNotices
from signalbus.receiving.sweeping.history_maintenance import maintain_history
from tasks.marketing.models import FormEntry
def hear(kind, raised, **others):
    FormEntry.objects.create(kind="alert", subject=f"{kind} {raised}", pid=0)
alert.connect(hear)
print("ready", flush=True)
while True:
    maintain_history()
"""


def raise_every_kind() -> None:
    """Add rows for a condition of each of the six kinds."""
    late = timezone.now() - timedelta(minutes=6)
    add_delivery(error="ValueError: bad", error_group="aa")
    add_delivery("", error="refused", error_group=group_of_fate("refused", ""), attempts=3)
    add_delivery("gone", "parked")
    for queue in ("email", "fax"):
        add_delivery(f"waits.in_{queue}", "published", due_at=late)
        Delivery.objects.filter(receiver=f"waits.in_{queue}").update(queue=queue)
    worker("a", "00", queues=["email"])
    worker("b", "11", queues=["email"])


def test_the_pages_say_each_alert_in_the_language_of_the_reader(bus: Bus):
    """In English as the ledger has it; the others have the same names and numbers. Another version's text is shown."""
    raise_every_kind()
    add_delivery(receiver="", error="KeyError", error_group="bb")
    add_delivery("waits.in_default", "published", due_at=timezone.now() - timedelta(minutes=6))
    history.judge_alerts()
    alerts = list(Alert.objects.all())

    assert {each.kind for each in alerts} == set(KINDS)
    for each in alerts:
        with override("en"):
            assert alert_text(each) == each.text
        for language in ("de", "es"):
            with override(language):
                assert alert_text(each) != each.text, each.text
                assert re.findall(r"\d+", alert_text(each)) == re.findall(r"\d+", each.text)
                assert alert_title(each) != each.kind
                assert each.key in {"", "aa", "bb"} or each.key in alert_text(each)
    older = Alert(kind="dead", text="14 dead")
    assert alert_text(older) == "14 dead"


def end_every_kind() -> None:
    """Remove what `raise_every_kind` added."""
    Delivery.objects.all().delete()
    WorkerRecord.objects.all().delete()


KINDS = ("dead", "overdue", "parked", "refused", "skew", "workers")


def test_each_alert_is_told_once_when_the_sweeper_that_judges_is_killed(bus: Bus, heard, database_url):
    """A process judges all the time while conditions of each kind come and go, and is killed at any moment."""
    random = Random(7)
    environment = {**os.environ, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    for _ in range(3):
        judge = subprocess.Popen([sys.executable, "-c", JUDGE], stdout=subprocess.PIPE, text=True, env=environment)
        with judge:
            assert judge.stdout is not None
            assert judge.stdout.readline() == "ready\n"
            with transaction.atomic():
                raise_every_kind()
            Event().wait(random.random() * 0.05)
            judge.kill()
        maintain_history()
        assert [kind for kind, _ in open_alerts()] == list(KINDS)
        end_every_kind()
        maintain_history()

    told = FormEntry.objects.filter(kind="alert").order_by("pk").values_list("subject", flat=True)
    for kind in KINDS:
        assert [each for each in told if each.startswith(kind)] == [f"{kind} True", f"{kind} False"] * 3


class Listener(ThreadingHTTPServer):
    """A web server on this machine that keeps what is posted, and answers as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: deque[int] = deque()
        self.posted: list[dict[str, Any]] = []
        self.got: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}/hook"


class Answer(BaseHTTPRequestHandler):
    """Keep a request, and answer it."""

    server: Listener

    def do_POST(self) -> None:
        """Keep the JSON text."""
        text = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()
        self.server.posted.append(json.loads(text))

    def do_GET(self) -> None:
        """Keep the path."""
        self.server.got.append(self.path)
        self._answer()

    def _answer(self) -> None:
        status = self.server.answers.popleft() if self.server.answers else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A web server."""
    with Listener() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def judge_and_send(notices: AlertNotices) -> None:
    """Judge once, and send what is to be sent."""
    maintain_history()
    notices.send()
    for thread in enumerate_threads():
        if thread.name == THREAD:
            thread.join()
    notices.keep_sent()


def test_a_webhook_is_told_once_of_the_beginning_and_of_the_end(bus: Bus, signal: Signal, listener: Listener):
    """Also by another sweeper; what it posts is what Slack takes, and says more to other programs."""
    park_one(bus, signal)
    alerts = {"webhook": listener.address, "base_url": "https://shop.example/"}
    with override_settings(SIGNALBUS={"ALERTS": alerts}):
        judge_and_send(AlertNotices())
        judge_and_send(AlertNotices())
        Delivery.objects.all().delete()
        judge_and_send(AlertNotices())
        judge_and_send(AlertNotices())

    said = "1 delivery is parked: no worker knows what they name."
    page = "https://shop.example/signalbus/deliveries/"
    first, last = listener.posted
    assert first == {
        "text": f"signalbus: {said}\n{page}",
        "id": f"{Alert.objects.get().pk}-raised",
        "kind": "parked",
        "key": "",
        "level": "warning",
        "raised": True,
        "url": page,
    }
    assert (last["text"], last["raised"]) == (f"signalbus: over: {said}\n{page}", False)


@pytest.mark.parametrize(
    ("urls", "page"),
    [
        ("tests.urls", "https://shop.example/signalbus/failures/"),
        ((path("admin/", admin.site.urls),), "https://shop.example/admin/signalbus/delivery/failures/"),
        ((), ""),
        ("tests.no_such_module", ""),
    ],
    ids=["the web app", "the admin alone", "no pages", "broken"],
)
def test_an_alert_links_to_a_page_that_the_project_has(urls: Any, page: str):
    """URLs that cannot be imported in a worker hold up no alert."""
    with override_settings(ROOT_URLCONF=urls, SIGNALBUS={"ALERTS": {"base_url": "https://shop.example"}}):
        assert page_of(history.Condition("dead", "5f3a", "1 delivery is dead: KeyError")) == page


@pytest.mark.parametrize("status", [500, 302])
def test_a_webhook_that_fails_is_tried_again(bus: Bus, signal: Signal, listener: Listener, caplog, status: int):
    """A redirect is an error too, and is not followed; the address is not logged."""
    park_one(bus, signal)
    listener.answers.append(status)
    with override_settings(SIGNALBUS={"ALERTS": {"webhook": listener.address}}):
        notices = AlertNotices()
        judge_and_send(notices)
        judge_and_send(notices)
        judge_and_send(notices)

    assert [post["raised"] for post in listener.posted] == [True, True]
    assert listener.got == []
    assert "signalbus could not tell of alerts by webhook, and will try again" in caplog.text
    assert "/hook" not in caplog.text


def test_an_alert_that_was_over_before_it_was_told_of_is_not_told_of(bus: Bus, signal: Signal, listener: Listener):
    """Nobody needs to know any more."""
    park_one(bus, signal)
    maintain_history()
    Delivery.objects.all().delete()
    with override_settings(SIGNALBUS={"ALERTS": {"webhook": listener.address}}):
        judge_and_send(AlertNotices())

    assert listener.posted == []


def test_what_notices_say_is_no_markup_and_has_no_errors_if_it_is_so_set(bus: Bus, signal: Signal, listener: Listener):
    """Slack reads <!channel> and masked links; a text that anybody can cause must do neither."""
    fails(signal, ValueError("<!channel> <https://evil.example|Log in> & more"), retry=ONCE)
    signal.send(None)
    bus.work()
    alerts = {"webhook": listener.address}
    with override_settings(SIGNALBUS={"ALERTS": alerts}):
        judge_and_send(AlertNotices())
    Alert.objects.update(notices={})
    with override_settings(SIGNALBUS={"ALERTS": alerts | {"errors": False}}):
        judge_and_send(AlertNotices())

    full, short = (post["text"] for post in listener.posted)
    assert full.endswith("ValueError: &lt;!channel&gt; &lt;https://evil.example|Log in&gt; &amp; more")
    assert short == "signalbus: 1 delivery to failing is dead."


def test_the_text_of_an_alert_follows_the_number_of_deliveries(bus: Bus, signal: Signal, heard):
    """It is not told of again."""
    fails(signal, ValueError("bad"), retry=ONCE)
    for text in ("1 delivery to failing is dead", "2 deliveries to failing are dead"):
        signal.send(None)
        bus.work()
        maintain_history()
        assert Alert.objects.get().text.startswith(text)

    assert heard == [("dead", "error", True)]


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")  # Django 6.1: MAILERS
def test_admins_get_a_mail(bus: Bus, signal: Signal):
    """An error's text, which anybody may have written, cannot add lines to the head of the mail."""
    fails(signal, ValueError("bad\r\nBcc: everybody@shop.example"), retry=ONCE)
    signal.send(None)
    bus.work()
    with override_settings(SIGNALBUS={"ALERTS": {"mail_admins": True}}, ADMINS=[("Ana", "ana@shop.example")]):
        judge_and_send(AlertNotices())
        judge_and_send(AlertNotices())

    (sent,) = mail.outbox
    assert sent.to == ["ana@shop.example"]
    assert sent.subject.startswith("[Django] signalbus: 1 delivery to failing is dead: ValueError: bad\\r")
    assert "An alert was raised (error, dead)." in sent.body


def test_a_watcher_outside_is_told_each_time_while_no_queue_is_stuck(bus: Bus, listener: Listener):
    """It is silent while a queue has no worker, so that the watcher raises its own alarm."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "mail", queue="email")
    with override_settings(SIGNALBUS={"HEARTBEAT_URL": listener.address}):
        judge_and_send(AlertNotices())
        assert listener.got == ["/hook"]
        signal.send(None)
        Delivery.objects.update(due_at=F("due_at") - timedelta(seconds=90))
        judge_and_send(AlertNotices())

    assert listener.got == ["/hook"]

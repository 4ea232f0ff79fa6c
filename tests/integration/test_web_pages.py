"""The web app's pages show what the ledger knows, look at a bounded number of rows, and work where they are mounted."""

from __future__ import annotations

import ast
import csv
import html
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override

from signalbus.ledger import operations as ledger
from signalbus.ledger.base.clock import LATEST
from signalbus.ledger.base.deliveries import new_delivery
from signalbus.ledger.history import BOUNDS
from signalbus.models import Alert, Delivery, FailedAttempt, Operation, Pause, Rollup, State, WorkerRecord
from signalbus.pages import bounded_search, figures, open_counts
from signalbus.pages.figures import SPANS, Times
from signalbus.pages.replay_test import replay_test
from signalbus.services.actors import code_actor
from signalbus.services.changes.bulk_operations import start_operation
from signalbus.services.changes.delivery_changes import matching, retry
from signalbus.services.changes.pausing import pause
from signalbus.services.queries.lookup import filter_from
from signalbus.web import page_access
from signalbus.web.views import activity_log, delivery_list
from tasks.admissions.models import Cohort
from tests.other_servers import DATABASE

from .admin_site import OPERATOR, READER, VIEWER, add_delivery, add_message, page, sealed_message, visitor

if TYPE_CHECKING:
    from django.test import Client

TAGGING = "tasks.marketing.receivers.cohort_post_save[admissions.Cohort]"
pytestmark = pytest.mark.usefixtures("database_url")


@pytest.fixture
def database() -> str:
    """One database for the pages; PostgreSQL, if a test asks for it."""
    return DATABASE or "sqlite"


@pytest.fixture
def reader(database_url: str) -> Client:
    """A user who may see deliveries and payloads."""
    return visitor(*READER)


@pytest.fixture
def operator(database_url: str) -> Client:
    """A user who may also change deliveries."""
    return visitor(*READER, *OPERATOR)


def url(name: str, *args: object) -> str:
    """Return the address of a page."""
    return reverse(f"signalbus_web:{name}", args=args)


def add_counts(receiver: str = "crm.sync", minutes: int = 0, **columns: object) -> None:
    """Add what a process counted in a minute of the past."""
    at = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=minutes)
    given = {"bucket_at": at, "seconds": 60, "signal": "shop.order_paid", "receiver": receiver, **columns}
    Rollup.objects.create(**given)


def test_an_empty_ledger_shows_the_first_steps(reader: Client):
    """A newcomer learns what to do; nothing looks like an error."""
    shown = page(reader, url("overview"))

    assert "Three steps to the first delivery" in shown
    assert "Nothing needs attention" not in shown
    for name in ("deliveries", "failures", "workers", "queues", "activity", "history", "signals"):
        page(reader, url(name))


def test_the_overview_says_that_nothing_needs_attention(reader: Client):
    """Where something was done, and no alert is raised."""
    add_counts(done=3)

    assert "Nothing needs attention" in page(reader, url("overview"))


def test_the_overview_shows_alerts_figures_and_groups(reader: Client):
    """What is dead, held and waiting, the oldest that waits, raised alerts, and failures by their cause."""
    Alert.objects.create(kind="overdue", key="", text="14 deliveries wait", raised_at=timezone.now())
    for _ in range(2):
        add_delivery(error="KeyError: 'slug'", error_group="9f31", failed_at=timezone.now())
    waiting = add_delivery("mail.send", "published")
    Delivery.objects.filter(pk=waiting.pk).update(due_at=timezone.now() - timedelta(minutes=9))
    add_delivery("mail.send", "held", held_reason="paused")
    shown = page(reader, url("overview"))

    assert "14 deliveries wait" in shown
    assert "(1) Overview" in shown
    assert "KeyError: &#x27;slug&#x27;" in shown
    assert "9:1" in shown  # the oldest, with the ten seconds before the sweeper asks for it
    assert "in queue signalbus" in shown


def test_a_deliverys_page_tells_its_whole_story(reader: Client):
    """Failed attempts with their tracebacks, the people's steps, the payload, the siblings and the cascade."""
    root = add_message("shop.order_paid", subject="shop.Order 7")
    add_delivery("billing.book", "done", root)
    sent = add_message("admissions.cohort_saved", {"city": "Sevilla"}, subject="admissions.Cohort 42", parent=root)
    delivery = add_delivery("marketing.tag", "dead", sent, error="KeyError: 'slug'", attempts=2)
    sibling = add_delivery("search.index", "done", sent)
    now = timezone.now()
    FailedAttempt.objects.create(
        delivery=delivery, number=1, ended_at=now, runtime_ms=12, worker="w1", release="c3d4", error="KeyError: 'slug'",
        error_group="x", traceback='File "receivers.py", line 31',
    )  # fmt: skip
    Operation.objects.create(
        kind="retry", filter={"ids": [str(delivery.pk)]}, reason="a race?", by="ana", through="web", created_at=now,
        started_at=now, ended_at=now,
    )  # fmt: skip
    shown = page(reader, url("delivery", delivery.pk))

    for text in (
        "Dead after 2 attempts",
        "Attempt 1 failed",
        "12 ms",
        "line 31",
        "c3d4",
        "a race?",
        "ana: retry",
        "Sevilla",
    ):
        assert text in shown, text
    assert str(sibling.pk) in shown
    assert "billing.<wbr>book" in shown
    assert 'aria-current="page"><code>marketing' in shown


def test_a_text_that_nobody_verified_is_shown_as_such(reader: Client):
    """It has no payload to show, and cannot be rehearsed."""
    stored = sealed_message("garbage")
    delivery = add_delivery("", "dead", message=None)
    Delivery.objects.filter(pk=delivery.pk).update(message=stored.pk)
    shown = page(reader, url("delivery", delivery.pk))

    assert "never run" in shown
    assert "garbage" not in shown


def test_a_delivery_shows_what_its_message_carries(reader: Client):
    """The context that is restored around the receiver, and who sent it, with secrets hidden at every depth."""
    carried = {"tenant": "acme", "structlog": {"request_id": "5f2a", "user": {"token": "hunter2"}}}
    delivery = add_delivery("crm.sync", "dead", add_message(context=carried))

    text = page(reader, url("delivery", delivery.pk))

    shown = text[text.index('id="context"') : text.index('id="siblings"')]
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", re.sub(r"<(?!/?d[td]>)[^>]+>", "", shown))
    assert facts == [("tenant", "acme"), ("structlog.request_id", "5f2a"), ("structlog.user.token", "hidden")]
    assert "hunter2" not in text
    assert 'id="context"' not in page(reader, url("delivery", add_delivery("crm.sync", "dead").pk))


def test_a_delivery_that_is_gone_is_named(reader: Client):
    """The page says what that may mean, and answers 404."""
    answer = reader.get(url("delivery", add_message().id))
    assert answer.status_code == 404
    assert "It is purged" in answer.content.decode() or "it is purged" in answer.content.decode()


def test_the_search_box_finds_ids_objects_and_filters(reader: Client):
    """An id leads to its delivery, also that of a message; an object to its history, a name to its page."""
    delivery = add_delivery(message=add_message(subject="admissions.Academy 5"))

    for text, expected in (
        (str(delivery.pk), url("delivery", delivery.pk)),
        (str(delivery.message_id), url("delivery", delivery.pk)),
        ("admissions.academy:5", f"{url('history')}?subject=admissions.academy%3A5"),
        ("state:dead receiver:crm.*", f"{url('deliveries')}?q=state%3Adead+receiver%3Acrm.%2A"),
        (TAGGING, f"{url('receiver')}?{urlencode({'id': TAGGING})}"),
        ("admissions.cohort_saved", f"{url('signals')}?q=admissions.cohort_saved"),
        ("COHORT_POST", f"{url('signals')}?q=COHORT_POST"),
        ("nothing has this name", f"{url('deliveries')}?q=nothing+has+this+name"),
    ):
        assert reader.get(url("find"), {"q": text}).headers["Location"] == expected
    assert "crm.<wbr>sync" in page(reader, url("history"), subject="admissions.academy:5")
    assert "admissions.<wbr>cohort_saved" in page(reader, url("signals"), q="COHORT_POST")


def test_an_object_without_messages_is_told_what_that_means(reader: Client):
    """The page says since when messages are kept."""
    add_delivery()
    shown = page(reader, url("history"), subject="shop.order:42")

    assert "The ledger has no message about shop.order 42" in shown
    assert "The oldest message that is kept" in shown


def test_the_list_goes_on_by_key(reader: Client, monkeypatch: pytest.MonkeyPatch):
    """Each delivery is on one page, the youngest first, and a page costs the same anywhere."""
    monkeypatch.setattr(delivery_list, "ROWS", 3)
    keys = {str(add_delivery().pk) for _ in range(7)}
    found, address = [], url("deliveries")
    for _ in range(3):
        shown = page(reader, address)
        on_page = [key for key in keys if f"/{key}/" in shown]
        found += on_page
        if 'rel="next"' in shown:
            link = shown.split('rel="next"')[0].rpartition('href="')[2].split('"')[0]
            address = url("deliveries") + link.replace("&amp;", "&")
    assert sorted(found) == sorted(keys)


def test_a_count_stops(reader: Client, monkeypatch: pytest.MonkeyPatch):
    """A list counts to a thousand, the overview to a hundred thousand; then there is a plus."""
    monkeypatch.setattr(delivery_list, "COUNTED", 3)
    monkeypatch.setattr(open_counts, "COUNTED", 2)
    for _ in range(5):
        add_delivery(state="pending", due_at=timezone.now())

    assert "3+ deliveries" in page(reader, url("deliveries"))
    assert str(open_counts.count_open().number(State.PENDING)) == "3+"
    assert str(open_counts.count_ended(State.DEAD, 3)) == "0"


def test_a_search_without_an_index_looks_at_the_youngest(reader: Client, monkeypatch: pytest.MonkeyPatch):
    """The page says so, and offers to search among older ones."""
    old = add_delivery("old.receiver")
    for _ in range(4):
        add_delivery()
    monkeypatch.setattr(bounded_search, "SCANNED", 3)
    shown = page(reader, url("deliveries"), q="receiver:old.*")

    assert str(old.pk) not in shown
    assert "Searched among the youngest 3 only" in shown
    assert "Search among older ones" in shown


def test_pages_make_a_fixed_number_of_statements(reader: Client):
    """It does not grow with the number of rows."""
    counts: list[dict[str, int]] = []
    for number in (1, 12):
        for index in range(number):
            add_delivery(
                f"crm.sync{index}",
                message=add_message(subject="shop.Order 1"),
                error_group="one",
                failed_at=timezone.now(),
            )
            add_counts(f"crm.sync{index}", index, done=1)
        found = {}
        for name in ("overview", "deliveries", "failures", "workers", "queues", "signals", "activity"):
            page(reader, url(name))
            with CaptureQueriesContext(
                connection,
            ) as queries:
                page(reader, url(name))
            found[name] = len(queries)
        counts.append(found)
    assert counts[0] == counts[1]


def test_figures_are_added_up_by_step(database_url: str):
    """Rows of processes, minutes, ten minutes and hours are in the step of their time; what is older is left out."""
    add_counts(done=2, release="a")
    add_counts(done=3, release="a", worker="w1")
    add_counts(minutes=30, done=5, failed=1, dead=2, release="b")
    add_counts(minutes=90, done=100)
    add_counts(minutes=0, seconds=0, done=1000)  # all that is older
    found = figures.outcomes(SPANS["1h"])

    assert len(found.points) == 60
    assert (found.total("done"), found.total("failed"), found.total("dead")) == (10, 1, 2)
    assert found.points[-1].done == 5
    assert [release for _at, release in found.releases] == ["b", "a"]
    assert figures.outcomes(SPANS["8h"]).total("done") == 110
    assert figures.of_receiver(SPANS["1h"], "other").outcomes.total("done") == 0
    receiver = figures.of_receiver(SPANS["1h"], "crm.sync")
    assert receiver.outcomes.points == found.points
    assert [(release, sums["done"]) for release, sums in receiver.releases] == [("b", 5), ("a", 5)]


def test_quantiles_are_bounds_of_the_histogram():
    """Nothing measured has none; what took longer than the last bound is infinite."""
    assert Times().quantile(0.5) is None
    some = Times([0, 98, 0, 2, *[0] * 27])
    assert some.quantile(0.5) == BOUNDS[1]
    assert some.quantile(0.99) == BOUNDS[3]
    assert Times([*[0] * 30, 1]).quantile(0.5) == float("inf")


def test_a_receivers_page_compares_releases(reader: Client):
    """Success, times and failures; what has not run says so."""
    add_counts("crm.sync", 40, done=100, release="a", runtime_ms=900, runtimes=[0, 100, *[0] * 29])
    add_counts("crm.sync", 1, done=1, failed=50, dead=49, release="b")
    shown = page(reader, url("receiver"), id="crm.sync")

    assert "50.50 %" in shown
    assert "100.00 %" in shown
    assert "1.00 %" in shown
    quiet = reader.get(url("receiver"), {"id": "no.such"})
    assert quiet.status_code == 404
    assert "It has not run in this range" in quiet.content.decode()


def test_workers_that_lack_receivers_are_named(reader: Client):
    """So is a queue in which something waits, and that nobody consumes."""
    now = timezone.now()
    for name, receivers in (("new:1", ["tag", "sync"]), ("old:2", ["sync"])):
        WorkerRecord.objects.create(
            name=name, host=name[:3], pid=1, pool="prefork", concurrency=4, queues=["signalbus"], version="0.6",
            registry_digest=name, receivers={"cohort_saved": receivers}, started_at=now, seen_at=now,
        )  # fmt: skip
    row = add_delivery(state="published")
    Delivery.objects.filter(pk=row.pk).update(queue="email")
    shown = page(reader, url("workers"))

    assert "cohort_saved -&gt; tag" in shown
    assert "No worker consumes the queue email." in shown


def test_an_operator_pauses_and_resumes(operator: Client):
    """The pause is on every page with its reason; the audit log has both steps."""
    form = {"kind": "queue", "name": "signalbus", "reason": "CRM is down", "minutes": "60"}
    assert operator.post(url("pause"), form).status_code == 302
    pause = Pause.objects.get()
    assert (pause.reason, pause.until is not None) == ("CRM is down", True)
    for name in ("overview", "workers", "activity"):
        assert "CRM is down" in page(operator, url(name))

    assert operator.post(url("resume"), {"kind": "queue", "name": "signalbus", "rate": "5"}).status_code == 302
    pause.refresh_from_db()
    assert pause.resume_rate == 5
    assert [entry.kind for entry in Operation.objects.order_by("id")] == ["pause", "resume"]


def test_a_viewer_sees_no_buttons(operator: Client):
    """What a viewer may not do is not offered."""
    delivery = add_delivery()
    Pause.objects.create(kind="queue", name="email", by="ana", since=timezone.now())
    viewer = visitor(*VIEWER)
    for address in (url("queues"), url("delivery", delivery.pk), url("receiver") + "?id=crm.sync"):
        assert 'class="pri">Pause' not in viewer.get(address).content.decode()
        assert url("rehearse", delivery.pk) not in viewer.get(address).content.decode()
    assert url("rehearse", delivery.pk) in page(operator, url("delivery", delivery.pk))


def test_links_stay_under_the_mount(operator: Client):
    """In the admin all links lead into the admin; a user of the other mount never meets it."""
    delivery = add_delivery(error_group="x", failed_at=timezone.now())
    inside = reverse("admin:signalbus_web:overview")
    shown = page(operator, inside)

    assert inside != url("overview")
    assert f'href="{inside}workers/"' in shown
    assert f'"{url("workers")}"' not in shown
    assert page(operator, reverse("admin:signalbus_web:delivery", args=[delivery.pk]))
    assert "admin/" not in page(visitor(*READER, staff=False), url("overview"))


@pytest.mark.parametrize("database", ["postgres"])
def test_a_statement_that_takes_too_long_ends_in_advice(reader: Client, monkeypatch: pytest.MonkeyPatch):
    """On PostgreSQL a page's statement ends after three seconds; the page says to narrow the search."""
    monkeypatch.setattr(page_access, "STATEMENT_MS", 1)
    monkeypatch.setattr(
        delivery_list, "find_keys", lambda *_arguments: connection.cursor().execute("SELECT pg_sleep(1)")
    )
    answer = reader.get(url("deliveries"))

    assert answer.status_code == 503
    assert "Narrow the time" in answer.content.decode()


def test_pages_are_whole_documents_for_a_screen_reader(reader: Client):
    """Each has one first heading, a main element, a skip link, labels, and no ids twice."""
    delivery = add_delivery(error_group="x", failed_at=timezone.now())
    for address in (url("overview"), url("deliveries"), url("delivery", delivery.pk), url("failures"), url("queues")):
        shown = page(reader, address)
        ids = [part.split('"')[0] for part in shown.split(' id="')[1:]]
        assert len(ids) == len(set(ids)), sorted(ids)
        assert shown.count("<h1") == shown.count("<main") == shown.count('class="skip"') == 1
        assert '<html lang="en"' in shown
        for part in shown.split('aria-labelledby="')[1:]:
            assert part.split('"')[0] in ids


@pytest.mark.parametrize(("language", "title"), [("de", "Übersicht"), ("es", "Resumen")])
def test_pages_speak_the_readers_language(reader: Client, language: str, title: str):
    """As far as Django knows it: by its middleware, or by LANGUAGE_CODE."""
    add_counts(done=1)
    with override(language):
        shown = page(reader, url("overview"))

    assert f"<h1>{title}</h1>" in shown
    assert f'<html lang="{language}"' in shown


def test_a_page_without_news_is_answered_without_a_body(reader: Client):
    """What a page renews by is 304 until something on it changes: its form's token and the time do not count."""
    with time_machine.travel(timezone.now() + timedelta(hours=1), tick=False) as clock:
        delivery = add_delivery(state="published", receiver="crm.sync")
        Delivery.objects.update(
            created_at=timezone.now() - timedelta(days=2), due_at=timezone.now() - timedelta(days=2)
        )
        shown = reader.get(url("deliveries"))
        clock.shift(5)
        same = reader.get(url("deliveries"), headers={"If-None-Match": shown.headers["ETag"]})
        Delivery.objects.filter(pk=delivery.pk).update(state="running")
        other = reader.get(url("deliveries"), headers={"If-None-Match": shown.headers["ETag"]})

    assert shown.content.count(b'id="updated"') == 1
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["Content-Security-Policy"] == shown.headers["Content-Security-Policy"]
    assert other.status_code == 200
    assert other.headers["ETag"] != shown.headers["ETag"]


def test_a_timeline_is_in_order_within_one_millisecond(reader: Client):
    """Attempts by number, then what a person did, then the end, whoever's clock is microseconds ahead."""
    at = timezone.now().replace(microsecond=2000)
    delivery = add_delivery(state="discarded", ended_at=at)
    for number in (2, 1):
        FailedAttempt.objects.create(
            delivery=delivery, number=number, ended_at=at + timedelta(microseconds=900 - number), error="KeyError: 1"
        )
    Operation.objects.create(
        kind="discard", by="ana", through="web", filter={"ids": [str(delivery.pk)]},
        created_at=at + timedelta(microseconds=950),
    )  # fmt: skip
    Delivery.objects.filter(pk=delivery.pk).update(created_at=at + timedelta(microseconds=940))

    shown = page(reader, url("delivery", delivery.pk)).partition('<ol class="time">')[2].partition("</ol>")[0]

    places = [shown.index(text) for text in ("Sent", "Attempt 1", "Attempt 2", "ana: discard", "#i-discarded")]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["deliveries", "failures", "signals", "operations", "activity"])
def test_each_list_is_had_as_a_file(operator: Client, name: str):
    """CSV and JSON have the same rows and columns; the page leads to both."""
    add_delivery("=crm.sync()", error="=KeyError", error_group="aa", failed_at=timezone.now())
    start_operation("retry", filter_from(["state:dead"]), actor=code_actor("=ana"), reason="=fixed")

    shown = page(operator, url(name))
    table = operator.get(url(name), {"format": "csv"})
    rows = list(csv.DictReader(table.content.decode().splitlines()))
    answer = operator.get(url(name), {"format": "json"}).json()

    assert "format=csv" in shown
    assert table.headers["Content-Disposition"] == f'attachment; filename="{name}.csv"'
    assert rows
    assert [list(row) for row in rows] == [list(row) for row in answer[name]]
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    assert table.content.startswith(b'"')  # each cell is quoted, so that no semicolon divides it
    assert answer["schema"] == 1


def test_the_activity_log_is_read_page_by_page(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """Older lines go on below the last one of the page, also while new ones are added."""
    monkeypatch.setattr(activity_log, "LINES", 2)
    for number in range(5):
        pause("receiver", f"crm.sync{number}", actor=code_actor("ana"), unknown=True)

    first = page(operator, url("activity"), by="ana")
    older = html.unescape(re.findall(r'href="([^"]+)" rel="next"', first)[0])
    pause("receiver", "crm.late", actor=code_actor("ana"), unknown=True)
    second = page(operator, f"{url('activity')}{older}")

    assert [re.findall(r"crm\.sync(\d)</code>", shown) for shown in (first, second)] == [["4", "3"], ["2", "1"]]
    assert "by=ana" in older
    assert "Back to the youngest" in second


def test_the_list_of_deliveries_names_the_command_that_lists_the_same(reader: Client):
    """The command has the words of the filter and of the range of time; without any, no command lists all."""
    assert "manage.py signalbus failed" not in page(reader, url("deliveries"))
    shown = page(reader, url("deliveries"), q="state:done 'error:two words'", since="8h")
    assert "manage.py signalbus failed state:done &#x27;error:two words&#x27; since:8h" in shown


def test_a_thousand_causes_are_one_file(operator: Client):
    """SQLite refuses a condition of a thousand parts."""
    message, now = add_message(), timezone.now()
    Delivery.objects.bulk_create(
        new_delivery(
            message.id, f"crm.r{number}", None, state=State("dead"), error="KeyError", error_group=f"g{number}",
            failed_at=now, ended_at=now,
        )
        for number in range(1000)
    )  # fmt: skip

    answer = operator.get(url("failures"), {"format": "json"}).json()

    assert len(answer["failures"]) == 1000


def test_only_operations_in_bulk_lead_to_a_page_of_their_own(operator: Client):
    """A retry of a few deliveries is a line of the log, also if a filter selected them."""
    dead = add_delivery("crm.sync", "dead", failed_at=timezone.now())
    actor = code_actor("ana")
    retry(matching(filter_from(["state:dead"]), actor=actor), actor=actor, reason="fixed", wanted="state:dead")
    assert Delivery.objects.get(pk=dead.pk).state == "pending"
    add_delivery("crm.other", "dead", failed_at=timezone.now())
    started = start_operation("retry", filter_from(["state:dead"]), actor=actor, reason="fixed")

    shown = page(operator, url("activity"))

    assert Operation.objects.count() == 2
    assert re.findall(rf"{url('operations')}(\d+)/", shown) == [str(started.id)]


def test_a_delivery_is_copied_as_a_test(reader: Client, operator: Client):
    """The test is Python: it makes the rows, sends the signal, runs the receivers, and holds no secret."""
    cohort, other = Cohort(pk=42), Cohort(pk=-42)
    cohort._state.adding = other._state.adding = False
    payload = {
        "instance": cohort, "created": True, "price": Decimal("1.50"), "at": datetime(2026, 11, 30, 12, tzinfo=UTC),
        "pair": (1, {"token": "hunter2"}), "odd key": "'''\n\"\"\" # {% x %}", "password": "hunter2",
        "old": Cohort(name="x"), "path": Path("/srv"), "class": 1, "other": other,
        "headers": [("Authorization", "hunter2"), ["password", "hunter2"]], "raw": b"password=hunter2",
        "field": {"name": "sessionid", "value": "hunter2"},
    }  # fmt: skip
    message = add_message("admissions.cohort_saved", payload, sender=Cohort)
    delivery = add_delivery(TAGGING, "dead", message, error='KeyError: \'slug\'\n"""')

    code = replay_test(message, delivery)

    ast.parse(code)
    assert "hunter2" not in code
    expected = """
from decimal import Decimal
from tasks.admissions.models import Cohort
from tasks.admissions.signals import cohort_saved
import datetime
    cohort_42 = Cohort.objects.create(pk=42)  # with the fields that the receivers read
    cohort_42_1 = Cohort.objects.create(pk=-42)  # with the fields that the receivers read
        cohort_saved.send(
            sender=Cohort,
            instance=cohort_42,
            created=True,
            price=Decimal('1.50'),
            path=None,  # here was a value of the type 'python:path'
            **{'class': 1},
            raw=None,  # here was bytes with a secret
"""
    assert set(expected.splitlines()) <= set(code.splitlines())
    assert "Copy as a test…" in page(reader, url("delivery", delivery.pk))
    assert "Copy as a test…" not in page(visitor(*VIEWER), url("delivery", delivery.pk))


@pytest.mark.parametrize("others", [0, 10])
def test_a_page_of_a_paused_receiver_says_it_once(operator: Client, others: int):
    """The band that is on every page leads to what the pause holds; the eleventh pause has one on its own page."""
    for number in range(others):
        pause("receiver", f"crm.sync{number}", actor=code_actor("ana"), unknown=True)
    pause("receiver", "crm.late", actor=code_actor("ana"), unknown=True)
    shown = operator.get(url("receiver"), {"id": "crm.late"}).content.decode()
    assert shown.count("crm.<wbr>late</a> is paused") == 1
    assert "It is paused" not in shown
    assert shown.count("deliveries/?q=receiver%3Acrm.late%20state%3Aheld") == 1


def test_a_dead_delivery_ends_after_its_last_attempt(reader: Client):
    """The two are written by two statements, and the clock may go on between them."""
    delivery = add_delivery("mail.send", "dead", attempts=1)
    assert delivery.ended_at is not None
    FailedAttempt.objects.create(
        delivery=delivery, number=1, ended_at=delivery.ended_at + timedelta(milliseconds=2), error="KeyError: 1"
    )

    shown = page(reader, url("delivery", delivery.pk)).partition('<ol class="time">')[2].partition("</ol>")[0]

    assert shown.index("Attempt 1 failed") < shown.index("#i-dead")


def test_a_delivery_that_waits_for_its_release_has_no_time_to_come(reader: Client):
    """It is due in years, so that no sweeper looks at it; people are not told of that."""
    due_at = timezone.now() + timedelta(seconds=LATEST)
    delivery = add_delivery("mail.send", "held", held_reason="paused", due_at=due_at)

    shown = page(reader, url("delivery", delivery.pk))

    assert "until somebody releases it" in shown
    assert f'datetime="{due_at.year}' not in shown


def test_the_overview_does_not_call_dead_deliveries_fine(reader: Client):
    """No alert is raised yet, or their cause is muted."""
    add_delivery("crm.sync", "dead", error="KeyError: 1", error_group="9f31", failed_at=timezone.now())

    shown = page(reader, url("overview"))

    assert "Nothing needs attention" not in shown
    assert "No alert is raised." in shown


def test_an_operation_that_waits_for_what_a_pause_holds_says_so(operator: Client):
    """Its first delivery cannot run; when it ends is not told."""
    delivery = add_delivery("crm.sync", "dead", error_group="9f31", failed_at=timezone.now())
    started = start_operation("retry", filter_from(["group:9f31"]), actor=code_actor("ana"), reason="fixed", rate=4)
    while ledger.step(started.id) == 0:
        pass
    address = url("operation", started.id)
    assert "which is held" not in page(operator, address)

    Delivery.objects.filter(pk=delivery.pk).update(state="held")

    shown = page(operator, address)
    assert "which is held" in shown
    assert "left</p>" not in shown

"""The web app's pages: who may see and do what, hostile text in every column, and bounds of every parameter."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings, strategies

from signalbus.exceptions import ConfigurationError
from signalbus.ledger.base.deliveries import storable
from signalbus.ledger.operations import add_bulk
from signalbus.models import (
    Alert,
    Delivery,
    FailedAttempt,
    Operation,
    Pause,
    Rollup,
    RunningDelivery,
    StoredMessage,
    WorkerRecord,
)
from signalbus.services.actors import may
from signalbus.web import urls
from tests.other_servers import DATABASE

from .admin_site import OPERATOR, READER, VIEWER, add_delivery, add_message, page, visitor
from .hostile_text import HOSTILE_TEXT, VERY_LONG, assert_is_harmless

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

pytestmark = pytest.mark.usefixtures("database_url")

ROOTS = ("signalbus_web", "admin:signalbus_web")
CHANGING = {"note", "pause", "resume", "reveal", "rehearse", "theme", "change", "steer"}  # they answer to POST alone
FOR_OPERATORS = {"preview"}  # pages that a viewer does not see
ROWS = (Delivery, StoredMessage, Operation, Pause, Alert, FailedAttempt, WorkerRecord)


@pytest.fixture
def database() -> str:
    """One database: what the pages show and refuse does not depend on it."""
    return DATABASE or "sqlite"


@pytest.fixture(autouse=True)
def broker_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor finds no broker, and does not look for one."""
    from signalbus.web.views import doctor_report

    monkeypatch.setattr(doctor_report, "examine", lambda: iter(()))


@pytest.fixture
def reader(database_url: str) -> Client:
    """A user who may see deliveries and payloads, and change deliveries."""
    return visitor(*READER, *OPERATOR)


def address(name: str, pk: UUID, root: str = ROOTS[0]) -> str:
    """Return the address of a page; of one about a delivery, that delivery's."""
    (route,) = (route for route, _view, known in urls.VIEWS if known == name)
    number = Operation.objects.values_list("pk", flat=True).last() or 1
    return reverse(f"{root}:{name}", args=[pk] if "<uuid" in route else [number] if "<int" in route else [])


def every_page(root: str = ROOTS[0]) -> Iterator[tuple[str, str]]:
    """Make a row, and yield the name and address of every page; a new page is in it by itself."""
    delivery = add_delivery(message=add_message(subject="shop.Order 1"), error_group="x", failed_at=timezone.now())
    for _route, _view, name in urls.VIEWS:
        yield name, address(name, delivery.pk, root)


def state_of_the_ledger() -> list[object]:
    """Return all that pages could change."""
    return [row for model in ROWS for row in model._default_manager.order_by("pk").values()]


@pytest.mark.parametrize("root", ROOTS)
def test_anonymous_visitors_are_sent_to_the_login(root: str):
    """No page says anything to who is not logged in, whatever the method."""
    client = Client()
    for name, url in every_page(root):
        for answer in (client.get(url), client.post(url, {"kind": "receiver", "name": "crm.sync", "reason": "x"})):
            assert answer.status_code == 302, (name, answer.status_code)
            assert "/login/" in answer.headers["Location"], name


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("permissions", [(), ("view_payload", "operate_delivery"), ("change_delivery",)])
def test_users_without_the_permission_to_view_see_nothing(root: str, permissions: tuple[str, ...]):
    """Staff see no page without it, whatever other permission they have."""
    client = visitor(*permissions)
    for name, url in every_page(root):
        assert client.get(url).status_code == 403, name
        assert client.post(url).status_code == 403, name


def test_the_admins_mount_is_for_staff_alone():
    """A user who is not staff sees the pages where the project has mounted them, and not inside the admin."""
    client = visitor(*READER, staff=False)
    page(client, reverse("signalbus_web:overview"))

    assert client.get(reverse("admin:signalbus_web:overview")).status_code == 302


@pytest.mark.parametrize("permissions", [VIEWER, READER, (*READER, *OPERATOR)])
def test_no_page_changes_anything_by_get(permissions: tuple[str, ...]):
    """A page is shown, or answers that it takes a POST; the ledger is as it was."""
    client, pages = visitor(*permissions), list(every_page())
    before = state_of_the_ledger()

    for name, url in pages:
        answer = client.get(url, {"kind": "receiver", "name": "crm.sync", "id": "crm.sync", "reason": "x"})
        allowed = {405, 403} if name in CHANGING else {200, 302, 404}
        allowed |= {400, 403} if name in FOR_OPERATORS else set()
        assert answer.status_code in allowed, (name, answer.status_code)
        assert client.head(url).status_code in allowed, name
    assert state_of_the_ledger() == before


def test_a_viewer_changes_nothing_by_post():
    """A viewer may see, and neither pause, resume, reveal nor rehearse."""
    client, pages = visitor(*VIEWER), list(every_page())
    before = state_of_the_ledger()

    for name, url in pages:
        if name != "theme":
            answer = client.post(url, {"kind": "receiver", "name": "crm.sync", "reason": "x"})
            assert answer.status_code in {403, 405}, (name, answer.status_code)
    assert state_of_the_ledger() == before


def test_every_page_has_a_strict_policy_of_content():
    """Nothing but files of this site is loaded, no page may be framed, and none is kept by a cache."""
    client = visitor(*READER, *OPERATOR)
    for name, url in every_page():
        if name in {*CHANGING, "find"}:
            continue
        headers = client.get(url).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; "), name
        assert "frame-ancestors 'none'" in policy, name
        assert "unsafe" not in policy, name
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "private, no-store" or "no-store" in headers["Cache-Control"]


def test_pages_hold_neither_scripts_nor_styles_of_their_own():
    """The policy of content needs no exception: everything is in files."""
    client = visitor(*READER, *OPERATOR)
    for name, url in every_page():
        if name in {*CHANGING, "find"}:
            continue
        text = client.get(url).content.decode()
        assert " style=" not in text, name
        assert "<style" not in text, name
        assert " on" not in {part[:3] for part in text.split("<")[1:] if part.startswith(" on")}, name
        assert text.count("<script") == text.count('<script type="module" src="') == 1, name


def test_static_files_of_another_host_are_in_the_policy(settings: Any):
    """A project may serve its static files from a host of their own."""
    settings.STATIC_URL = "https://static.example/files/"
    policy = visitor(*READER).get(reverse("signalbus_web:overview")).headers["Content-Security-Policy"]

    assert "style-src 'self' https://static.example;" in policy


def test_a_form_needs_its_token_and_its_own_site():
    """A POST without the token of the form, or that another site has sent, is refused."""
    operator = visitor(*READER, *OPERATOR)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = operator.cookies
    url, form = reverse("signalbus_web:pause"), {"kind": "queue", "name": "signalbus"}

    assert strict.post(url, form).status_code == 403
    for site in ("cross-site", "same-site"):
        assert operator.post(url, form, headers={"Sec-Fetch-Site": site}).status_code == 403
    assert not Pause.objects.exists()
    assert operator.post(url, form, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 302
    assert Pause.objects.get().by == operator.session["_auth_user_id"] or Pause.objects.get().by.startswith("user-")


def test_payloads_need_their_own_permission():
    """A viewer does not see a payload; a reader sees it with secrets hidden at every depth."""
    sent = add_message(payload={"city": "Sevilla", "extra": [{"api_token": "s3cret", "deep": {"password": "s3cret"}}]})
    url = address("delivery", add_delivery(message=sent).pk)

    assert "Sevilla" not in page(visitor(*VIEWER), url)
    shown = page(visitor(*READER), url)
    assert "Sevilla" in shown
    assert "s3cret" not in shown


def test_revealing_is_logged_with_its_reason():
    """It needs the permission, a reason and a POST; the audit log names the person before the page shows anything."""
    sent = add_message(payload={"api_token": "s3cret"})
    delivery = add_delivery(message=sent)
    reader = visitor(*READER)

    refused = reader.post(address("reveal", delivery.pk), {"reason": " "})
    assert b"s3cret" not in refused.content
    assert not Operation.objects.exists()

    shown = reader.post(address("reveal", delivery.pk), {"reason": "ticket 8812"})
    assert b"s3cret" in shown.content
    entry = Operation.objects.get()
    assert (entry.kind, entry.reason, entry.filter) == ("reveal", "ticket 8812", {"delivery": str(delivery.pk)})
    assert visitor(*VIEWER).post(address("reveal", delivery.pk), {"reason": "x"}).status_code == 403


WRONG = {
    "span": ("99y", "9" * 5000),
    "after": ("x", "9" * 9999),
    "since": ("99999999999d", "%00"),
    "q": (
        "%00", "id:x " * 90, "attempts:>99999999999", "since:9999999d", "'", "signal:%00", "until:9999-99-99",
        "since:99999999999999999d", "state:dead," * 500, "receiver:%ED%A0%80",
    ),
    "format": ("xml", "csv&q=%00"),
    "id": ("%00", "x" * 5000),
    "subject": ("%00", "x" * 5000, "a.b:%ED%A0%80"),
    "by": ("%00", "x" * 5000),
    "kind": ("%00", "x"),
    "far": ("9",),
    "before": ("%00", "x", "-1", "9" * 30, "99999999999999999"),
    "only": ("x",),
    "app": ("%00", "x" * 5000),
}  # fmt: skip
READERS = {  # of the parameters
    "overview": ("span",),
    "find": ("q",),
    "deliveries": ("q", "after", "since", "format"),
    "delivery": ("far",),
    "history": ("subject",),
    "signals": ("q", "only", "span", "format"),
    "graph": ("q", "app"),
    "receiver": ("id", "span"),
    "queues": ("kind",),
    "activity": ("by", "kind", "before", "format"),
    "failures": ("after", "format"),
    "operations": ("format",),
    "preview": ("q", "since", "kind"),
}


@pytest.mark.parametrize("name", READERS)
def test_bad_input_any_value_of_a_parameter_gives_a_page(name: str):
    """A wrong value is an error on the page, or is ignored."""
    client, url = visitor(*READER, *OPERATOR), address(name, add_delivery().pk)
    for parameter in READERS[name]:
        for value in WRONG[parameter]:
            answer = client.get(f"{url}?{parameter}={value}")
            assert answer.status_code in {200, 302, 400, 404}, (parameter, value[:50], answer.status_code)
            assert len(answer.content) < 200_000, (parameter, value[:50])


@pytest.mark.parametrize(
    "form",
    [
        {}, {"kind": "x", "name": "y"}, {"kind": "receiver", "name": ""}, {"kind": "receiver", "name": "\x00"},
        {"kind": "filter", "name": "error:x"}, {"kind": "queue", "name": "x" * 9999},
        {"kind": "receiver", "name": "unknown.receiver", "minutes": "9" * 999}, {"kind": "receiver", "rate": "nan"},
        {"kind": "queue", "name": "signalbus", "rate": "1e999"}, {"kind": "queue", "name": "signalbus", "rate": "-1"},
    ],
)  # fmt: skip
def test_bad_input_a_form_that_was_changed_by_hand_changes_nothing(form: dict[str, str]):
    """Wrong names, kinds and rates are errors on the page."""
    client = visitor(*READER, *OPERATOR)
    for name in ("pause", "resume"):
        if name == "pause" and "rate" in form:
            continue
        answer = client.post(reverse(f"signalbus_web:{name}"), form)
        assert answer.status_code == 400, (name, answer.status_code)
    assert not Pause.objects.exists()


def test_the_theme_leads_back_into_this_site_alone():
    """A form of another site cannot use it to lead a user away."""
    client, url = visitor(*VIEWER), reverse("signalbus_web:theme")
    for back in ("https://evil.example/", "//evil.example/", "javascript:alert(1)", "", "\\\\evil.example"):
        answer = client.post(url, {"theme": "dark", "next": back})
        assert answer.headers["Location"] == reverse("signalbus_web:overview"), back
    assert (
        client.post(url, {"theme": "<x>", "next": "/signalbus/workers/"}).headers["Location"] == "/signalbus/workers/"
    )
    assert 'data-theme="dark"' in page(client, reverse("signalbus_web:overview"))


def add_hostile_rows(texts: list[str]) -> Delivery:
    """Add rows to all tables, with hostile texts in each of their columns."""
    signal, subject, receiver, queue, error, traceback, worker, value = (storable(text) for text in texts)
    now, name = timezone.now(), worker[:255] or "w"
    sent = add_message(signal, {value or "key": [value]}, subject=subject, context={value: value})
    child = add_message(signal, {}, subject=subject, parent=sent)
    delivery = add_delivery(
        receiver, "held", sent, error=error, traceback=traceback, worker=worker, held_reason=error, failed_at=now
    )
    Delivery.objects.filter(pk=delivery.pk).update(queue=queue[:255])
    FailedAttempt.objects.create(
        delivery=delivery, number=1, ended_at=now, worker=worker, release=value, error=error, error_group="x",
        traceback=traceback,
    )  # fmt: skip
    add_delivery(receiver, "dead", child, error=error, traceback=traceback, error_group="x", failed_at=now)
    RunningDelivery.objects.all().delete()
    WorkerRecord.objects.all().delete()
    Pause.objects.all().delete()
    Alert.objects.all().delete()
    Rollup.objects.all().delete()
    RunningDelivery.objects.create(
        worker=name, delivery=delivery.pk, message=sent.id, signal=signal, receiver=receiver, attempt=1,
        started_at=now, seen_at=now,
    )  # fmt: skip
    for number in range(2):
        WorkerRecord.objects.create(
            name=f"{number}{name}"[:255], host=worker, pid=1, pool=value, concurrency=1, queues=[queue], version=value,
            release=f"{value}{number}", registry_digest=str(number),
            receivers={signal: [receiver]} if number else {}, started_at=now, seen_at=now,
        )  # fmt: skip
    Pause.objects.create(kind="receiver", name=receiver, by=value, reason=error, since=now, until=now)
    Alert.objects.create(kind="dead", key=value, text=error, raised_at=now)
    Operation.objects.create(
        kind="retry", filter={"ids": [str(delivery.pk)], value: value}, reason=error, by=value, through="web",
        counts={value: value}, created_at=now, started_at=now, ended_at=now,
    )  # fmt: skip
    add_bulk("retry", (f"group:{value}", f"error:{error}"), by=value, by_id="", through="web", reason=error)
    for release in (value, f"{value} new"):
        Rollup.objects.create(
            bucket_at=now, seconds=60, worker=worker, release=release, queue=queue, signal=signal, receiver=receiver,
            done=1, failed=1, runtimes=[1] * 31, delays=[1] * 31,
        )  # fmt: skip
    return delivery


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=strategies.lists(HOSTILE_TEXT, min_size=8, max_size=8))
@example(texts=[VERY_LONG] * 8)  # for a database that holds each column to its length
def test_hostile_text_is_shown_escaped(reader: Client, texts: list[str]):
    """Markup, escapes of terminals, bidirectional marks and very long texts, in every column of every page."""
    delivery = add_hostile_rows(texts)
    value = storable(texts[-1])
    for _route, _view, name in urls.VIEWS:
        if name in CHANGING:
            continue
        url = address(name, delivery.pk)
        parameters = {
            "id": delivery.receiver,
            "subject": delivery.message.subject,
            "q": value,
            "by": value,
            "app": value,
        }
        answer = reader.get(
            url, parameters if name in {"receiver", "history", "deliveries", "signals", "graph", "preview"} else {}
        )
        assert answer.status_code in {200, 302, 404} or name in FOR_OPERATORS, (name, answer.status_code)
        assert_is_harmless(answer.content.decode())
    for form in (
        {"id": [delivery.pk]},
        {"filter": f"group:{value}"},
        {"filter": value, "reason": value, "rate": value},
    ):
        assert_is_harmless(reader.post(address("preview", delivery.pk), {"verb": "retry", **form}).content.decode())
    for parameters in ({"q": value}, {"q": f"signal:{value}"}, {"since": value}):
        assert_is_harmless(page(reader, address("deliveries", delivery.pk), **parameters))


def test_a_file_for_a_spreadsheet_has_no_formulas(reader: Client):
    """A cell that a spreadsheet would take for a formula begins with an apostrophe; in JSON nothing is changed."""
    add_delivery(receiver="@evil", message=add_message("+evil", subject="=HYPERLINK(1)"), error="-1+cmd|' /C calc'!A0")
    url = reverse("signalbus_web:deliveries")

    cells = list(csv.reader(page(reader, url, format="csv").splitlines()))[1]
    assert {"'@evil", "'+evil", "'=HYPERLINK(1)", "'-1+cmd|' /C calc'!A0"} <= set(cells)
    (row,) = json.loads(page(reader, url, format="json"))["deliveries"]
    assert row["receiver"] == "@evil"


def test_very_long_texts_are_cut(reader: Client):
    """A page stays small enough for a browser, whatever a receiver raised."""
    long = "long " * 100_000
    delivery = add_delivery(
        long, "dead", add_message(long[:50_000], {"text": long[:50_000]}, subject=long), error=long, traceback=long,
        worker=long, error_group="x", failed_at=timezone.now(),
    )  # fmt: skip
    for name in ("overview", "deliveries", "delivery", "failures"):
        assert len(page(reader, address(name, delivery.pk))) < 120_000, name


def only_support(user: Any, permission: str) -> bool:
    """Let users of one name see deliveries."""
    return bool(user.get_username() == "support" and permission == "signalbus.view_delivery")


@pytest.mark.parametrize("access", [only_support, f"{__name__}.only_support"])
def test_a_function_of_the_project_decides_who_sees_and_changes(settings: Any, access: object):
    """Django's own permissions do not count then, nor does being a superuser; anonymous users see no page."""
    support, boss = Client(), Client()
    users = get_user_model()._default_manager
    support.force_login(users.create_user("support", is_staff=True))
    boss.force_login(users.create_superuser("boss"))
    delivery = add_delivery()
    settings.SIGNALBUS = {"ACCESS": access}

    for root in ROOTS:
        assert support.get(address("deliveries", delivery.pk, root)).status_code == 200
        assert boss.get(address("deliveries", delivery.pk, root)).status_code == 403
        assert support.get(address("preview", delivery.pk, root)).status_code == 403
    assert Client().get(address("deliveries", delivery.pk)).status_code == 302
    assert support.get("/admin/signalbus/delivery/").status_code == 200
    assert "Rehearse" not in support.get(f"/admin/signalbus/delivery/{delivery.pk}/change/").content.decode()
    settings.SIGNALBUS = {"ACCESS": lambda user, permission: user.username == "support"}
    assert "Rehearse" in support.get(f"/admin/signalbus/delivery/{delivery.pk}/change/").content.decode()
    assert boss.get("/admin/signalbus/delivery/").status_code == 403


def test_bad_input_access_must_be_a_function(settings: Any):
    """The error names the setting; no page is shown."""
    for wrong in (5, "mysite.nothing.here"):
        settings.SIGNALBUS = {"ACCESS": wrong}
        with pytest.raises(ConfigurationError, match="ACCESS"):
            may(get_user_model()(username="ana"), "signalbus.view_delivery")

"""The admin's pages: who may see and do what, hostile text in every column, and bounds of every parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings, strategies

from signalbus.ledger.base.deliveries import storable
from signalbus.models import Delivery, FailedAttempt, Operation, Pause, StoredMessage
from tasks.admissions.models import Academy
from tests.other_servers import DATABASE

from .admin_site import (
    DELIVERIES,
    MESSAGES,
    OPERATIONS,
    OPERATOR,
    READER,
    VIEWER,
    add_delivery,
    add_message,
    page,
    visitor,
)
from .hostile_text import HOSTILE_TEXT, VERY_LONG, assert_is_harmless

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("database_url")


@pytest.fixture
def database() -> str:
    """One database: what the pages show and refuse does not depend on it."""
    return DATABASE or "sqlite"


@pytest.fixture
def reader(database_url: str) -> Client:
    """A user who may see deliveries and payloads, and change deliveries, whose pages show most."""
    return visitor(*READER, *OPERATOR, "view_academy")


def every_page() -> Iterator[str]:
    """Make rows, and yield the address of every page about them."""
    sent = add_message()
    delivery = add_delivery(message=sent)
    yield from (DELIVERIES, MESSAGES, OPERATIONS, f"{DELIVERIES}receivers/", f"{DELIVERIES}failures/")
    yield f"{DELIVERIES}{delivery.pk}/change/"
    yield f"{MESSAGES}{sent.id}/change/"


def operators_pages() -> Iterator[str]:
    """Yield the address of every page that only an operator sees."""
    yield from (f"{DELIVERIES}pause/?kind=receiver&name=x", f"{DELIVERIES}resume/?kind=receiver&name=x")


def state_of_the_ledger() -> list[object]:
    """Return all that pages could change."""
    return [
        *Delivery.objects.order_by("pk").values(),
        *Operation.objects.values(),
        *Pause.objects.values(),
        *StoredMessage.objects.order_by("pk").values(),
    ]


@pytest.mark.parametrize("permissions", [(), ("change_delivery", "add_delivery", "delete_delivery"), ("view_payload",)])
def test_staff_without_the_permission_see_nothing(permissions: tuple[str, ...]):
    """They see neither a page nor its link in the index, whatever other permission they have."""
    client = visitor(*permissions)

    for url in (*every_page(), *operators_pages()):
        assert client.get(url).status_code == 403, url
    assert "signalbus" not in page(client, "/admin/")


def test_users_who_are_not_staff_are_redirected_to_the_login():
    """This holds for anonymous visitors and for users who are not staff, whatever permissions they have."""
    for client in (Client(), visitor(*READER, *OPERATOR, staff=False)):
        for url in (*every_page(), *operators_pages()):
            answer = client.get(url)
            assert answer.status_code == 302, url
            assert answer.headers["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("permissions", [VIEWER, READER, OPERATOR])
def test_no_page_changes_anything_by_get(permissions: tuple[str, ...]):
    """No page changes anything by GET."""
    client, urls = visitor(*permissions), list(every_page())
    if "operate_delivery" in permissions:
        urls += operators_pages()
    before = state_of_the_ledger()

    for url in urls:
        page(client, url)
        client.get(url, {"action": "retry", "_selected_action": "1", "post": "yes", "index": "0"})

    assert state_of_the_ledger() == before


def test_rows_cannot_be_added_edited_or_deleted():
    """A user with all of Django's permissions cannot either."""
    client = visitor(*READER, *OPERATOR, "add_delivery", "change_delivery", "delete_delivery")
    delivery = add_delivery()
    before = state_of_the_ledger()

    for base, key in ((DELIVERIES, delivery.pk), (MESSAGES, delivery.message_id)):
        for url in (f"{base}add/", f"{base}{key}/change/", f"{base}{key}/delete/"):
            assert client.post(url, {"receiver": "evil", "post": "yes", "_save": "1"}).status_code == 403, url
        client.post(base, {"action": "delete_selected", "_selected_action": str(key), "post": "yes"})
    assert state_of_the_ledger() == before


@pytest.mark.parametrize(
    "query",
    ["error__iregex=(a%2B)%2B%24", "message__text__contains=x", "receiver=crm", "_to_field=traceback", "id__in=1"],
)
def test_bad_input_no_column_can_be_searched_by_a_parameter(query: str):
    """A regular expression of an attacker could take all day."""
    client = visitor(*VIEWER)

    for url in (DELIVERIES, MESSAGES):
        assert client.get(f"{url}?{query}").status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "after=x", "after=" + "9" * 9999, "p=999999999999", "p=x", "o=-1.2.x", "all=", "_facets=True", "_popup=1",
        "e=1",
        "q=%00", "q=" + "id:x " * 90, "q=attempts:>99999999999", "q=since:9999999d", "q=since:99999999999999999d",
        "q=until:9999-99-99", "state=%00", "state=" + "dead," * 999, "since=0001-01-01",
        "since=9999-12-31T23:59:59.999999",
        "q=signal:%00", "q=receiver:%ED%A0%80",
    ],
)  # fmt: skip
def test_bad_input_any_value_of_a_parameter_gives_a_page(query: str):
    """A wrong value is an error on the page, or is ignored."""
    client = visitor(*VIEWER)
    add_delivery()

    for url in (DELIVERIES, MESSAGES):
        answer = client.get(f"{url}?{query}")
        assert answer.status_code in {200, 400}, (url, answer.status_code)
        assert answer.status_code == 200 or "state" in query, url


@pytest.mark.parametrize("key", ["x", "0", "%3Cscript%3E", "9" * 5000, "0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b"])
def test_bad_input_a_page_of_no_row_leads_to_the_index(key: str):
    """A message says that the row does not exist, and may have been purged."""
    client = visitor(*VIEWER)

    for url in (DELIVERIES, MESSAGES):
        assert client.get(f"{url}{key}/change/").status_code == 302


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=strategies.lists(HOSTILE_TEXT, min_size=8, max_size=8))
@example(texts=[VERY_LONG] * 8)  # for a database that holds each column to its length
def test_hostile_text_is_shown_escaped(reader: Client, texts: list[str]):
    """Markup, escapes of terminals, bidirectional marks and very long texts, in every column of every page."""
    signal, subject, receiver, queue, error, traceback, worker, value = (storable(text) for text in texts)
    client = reader
    sent = add_message(signal, {value or "key": [value]}, subject=subject, context={value: value})
    child = add_message(signal, {}, subject=subject, parent=sent)
    delivery = add_delivery(
        receiver, "held", sent, error=error, traceback=traceback, worker=worker, held_reason=error,
        failed_at=timezone.now(),
    )  # fmt: skip
    Delivery.objects.filter(pk=delivery.pk).update(queue=queue[:255])
    FailedAttempt.objects.create(
        delivery=delivery, number=1, ended_at=timezone.now(), worker=worker, release=value, error=error,
        error_group="x", traceback=traceback,
    )  # fmt: skip
    dead = add_delivery(
        receiver, "dead", child, error=error, traceback=traceback, error_group="x", failed_at=timezone.now()
    )
    Pause.objects.all().delete()
    Pause.objects.create(kind="receiver", name=receiver, by=worker, reason=error, since=timezone.now())
    operation = Operation.objects.create(
        kind="retry", by=worker, by_id=value, through="admin", reason=error, filter={value: [value]},
        counts={value: value}, details={value: {value: [value]}}, created_at=timezone.now(),
    )  # fmt: skip
    academy, _ = Academy.objects.update_or_create(slug="a", defaults={"name": value[:150] or "A"})
    StoredMessage.objects.filter(pk=sent.id).update(subject=f"admissions.Academy {academy.pk}")

    for url in (
        DELIVERIES, MESSAGES, OPERATIONS, f"{DELIVERIES}failures/", f"{DELIVERIES}receivers/",
        f"{DELIVERIES}{delivery.pk}/change/", f"{DELIVERIES}{dead.pk}/change/", f"{MESSAGES}{sent.id}/change/",
        f"{MESSAGES}{child.id}/change/", f"{OPERATIONS}{operation.pk}/change/",
        f"/admin/admissions/academy/{academy.pk}/signals/",
    ):  # fmt: skip
        assert_is_harmless(page(client, url))
    for parameters in ({"q": value}, {"q": f"signal:{value}"}, {"state": value}, {"since": value}):
        assert_is_harmless(page(client, DELIVERIES, **parameters))
    for verb in ("pause", "resume"):
        form = {"kind": "receiver", "name": value}
        assert_is_harmless(page(client, f"{DELIVERIES}{verb}/", **form))
        assert_is_harmless(
            client.post(f"{DELIVERIES}{verb}/", {**form, "reason": value, "rate": value}).content.decode()
        )
    for answer in (
        client.post(DELIVERIES, {"action": "retry_deliveries", "_selected_action": str(dead.pk)}),
        client.post(f"{DELIVERIES}{dead.pk}/rehearse/", follow=True),
    ):
        assert_is_harmless(answer.content.decode())


def test_very_long_texts_are_cut(reader: Client):
    """A page stays small enough for a browser, whatever a receiver raised."""
    long = "long " * 100_000
    delivery = add_delivery(
        long, "dead", add_message(long[:50_000], subject=long), error=long, traceback=long, worker=long
    )

    for url in (DELIVERIES, MESSAGES, f"{DELIVERIES}{delivery.pk}/change/", f"{MESSAGES}{delivery.message_id}/change/"):
        assert len(page(reader, url)) < 100_000

"""The admin's pages of receivers, failures by cause, operations, and the signals of a project's own row."""

from __future__ import annotations

import html
import re

import pytest
from django.test import Client
from django.utils import timezone

from signalbus import Retry
from signalbus.models import Operation
from signalbus.services import groups
from signalbus.services.actors import code_actor
from signalbus.services.changes.pausing import pause
from tasks.admissions.models import Academy
from tests.other_servers import DATABASE

from .admin_site import DELIVERIES, OPERATIONS, OPERATOR, VIEWER, add_delivery, add_message, page, visitor
from .bus import connect, new_signal

pytestmark = pytest.mark.usefixtures("database_url")


@pytest.fixture
def database() -> str:
    """One database: the queries are those of the commands, which have tests on each."""
    return DATABASE or "sqlite"


@pytest.fixture
def viewer(database_url: str) -> Client:
    """A user who may see deliveries."""
    return visitor(*VIEWER)


def words(text: str) -> str:
    """Return the words of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text[text.index('id="content-main"') :]))


def test_receivers_are_shown_with_their_policy_and_pauses(viewer: Client):
    """Each leads to its deliveries; a signal that nobody receives says so."""
    signal, lonely = new_signal(durable=True), new_signal()
    connect(signal, lambda **kwargs: None, "crm.sync", retry=Retry(max_attempts=7), queue="email")
    pause("receiver", "crm.sync", actor=code_actor("ana"))

    text = page(viewer, f"{DELIVERIES}receivers/")

    shown = words(text)
    assert re.search(r"crm\.sync paused any email in a transaction, 7 attempts", shown)
    assert f'href="{DELIVERIES}?q=receiver%3Acrm.sync"' in text
    assert re.search(rf"{re.escape(lonely.name)} .{{0,200}}Nobody receives it", shown)


def test_failures_are_shown_by_their_cause(viewer: Client):
    """The most frequent first; its numbers lead to its deliveries, to be retried or discarded."""
    sent, now = add_message("shop.order_paid"), timezone.now()
    for number in range(3):
        add_delivery(f"tag.{number}", "dead", sent, error="KeyError: 'slug'", error_group="aa", failed_at=now)
    latest = add_delivery("crm.sync", "dead", sent, error="ConnectTimeout", error_group="bb", failed_at=now)

    text = page(viewer, f"{DELIVERIES}failures/")

    shown = words(text)
    assert shown.index("KeyError: &#x27;slug&#x27; 3 dead") < shown.index("ConnectTimeout 1 dead")
    assert f"{DELIVERIES}{latest.pk}/change/" in text
    (url,) = re.findall(r'href="([^"]*group%3Aaa[^"]*)"', text)
    assert "3 deliveries" in page(viewer, url.replace("&amp;", "&"))
    assert f"{DELIVERIES}failures/" in page(viewer, DELIVERIES)
    assert "All that has failed and is not resolved was looked at" in shown


def test_the_causes_of_the_newest_failures_are_shown(viewer: Client, monkeypatch: pytest.MonkeyPatch):
    """A page looks at a bounded number of failures, says so, and offers to look at older ones."""
    monkeypatch.setattr(groups, "WINDOW", 3)
    monkeypatch.setattr(groups, "WINDOW_OF_ALL", 3)
    now = timezone.now()
    for number in range(5):
        add_delivery("crm.sync", "dead", error=f"Error{number}", error_group=f"g{number}", failed_at=now)

    text = page(viewer, f"{DELIVERIES}failures/")
    (older,) = re.findall(r'href="([^"]*)">Look at older ones', text)
    rest = page(viewer, older)

    assert re.search(r"The newest 3 (failures|deliveries) were looked at", words(text))
    assert [f"Error{number}" in text for number in range(5)] == [False, False, True, True, True]
    assert [f"Error{number}" in rest for number in range(5)] == [True, True, False, False, False]
    assert "There are no older ones" in words(rest)
    assert words(page(viewer, f"{DELIVERIES}failures/?after=x")) == words(text)


def test_a_cause_leads_to_the_preview_of_all_its_deliveries():
    """Its buttons choose what failed for this cause, and nothing else; a viewer has none."""
    operator, now = visitor(*OPERATOR), timezone.now()
    for number in range(3):
        add_delivery("crm.sync", "dead" if number else "pending", error="E", error_group="aa", failed_at=now)
    add_delivery("crm.sync", "dead", error="F", error_group="bb", failed_at=now)

    text = page(operator, f"{DELIVERIES}failures/")
    form = re.search(r'action="([^"]*group%3Aaa[^"]*)">(.*?)</form>', text, re.DOTALL)
    assert form is not None
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form[2]))
    preview = operator.post(html.unescape(form[1]), fields).content.decode()

    assert "Retry 3 deliveries?" in preview
    assert f"{DELIVERIES}pause/?kind=receiver&amp;name=crm.sync" in text
    viewer = visitor(*VIEWER)
    assert "<button" not in page(viewer, f"{DELIVERIES}failures/").split('id="content-main"')[1]


def test_operations_are_shown(viewer: Client):
    """Who did what to which deliveries, and why; each has a page with all of it."""
    hostile = "<script>alert(1)</script>\u202e"
    made = Operation.objects.create(
        kind="retry", by=hostile, through="admin", reason=hostile * 9, filter={"filter": f"state:dead error:{hostile}"},
        counts={"retried": 41}, details={hostile: [hostile]}, created_at=timezone.now(),
    )  # fmt: skip
    Operation.objects.create(kind="pause", by="ana", through="command", filter=[], counts=[], created_at=timezone.now())

    listed, one = page(viewer, OPERATIONS), page(viewer, f"{OPERATIONS}{made.pk}/change/")

    assert words(listed).index("ana (command)") < words(listed).index("41 retried")
    for text in (listed, one):
        assert "state:dead" in text
        assert "<script>alert" not in text
        assert "\u202e" not in text


ACADEMIES = "/admin/admissions/academy/"


def test_a_projects_row_links_to_its_signals():
    """Beside "History", for those who may see deliveries, on top of any template that the page has."""
    academy = Academy.objects.create(name="A", slug="a")
    sent = add_message("shop.order_paid", subject=f"admissions.Academy {academy.pk}")
    delivery = add_delivery("crm.sync", "dead", sent, error="KeyError: 'slug'")
    add_delivery("other", "dead", add_message(subject="admissions.Academy 999999"))
    url = f"{ACADEMIES}{academy.pk}/"
    both = visitor(*VIEWER, "view_academy")

    text = page(both, f"{url}change/")
    history = page(both, f"{url}signals/")

    assert f'<a href="{url}signals/">Signals</a>' in text
    assert "History" in text
    assert f"{DELIVERIES}{delivery.pk}/change/" in history
    assert "KeyError: &#x27;slug&#x27;" in history
    assert "other" not in words(history)


def test_the_signals_of_a_row_need_both_permissions():
    """A user needs the permission of deliveries, and that of the row."""
    academy = Academy.objects.create(name="A", slug="a")
    url = f"{ACADEMIES}{academy.pk}/"
    without = visitor("view_academy")

    assert "Signals" not in page(without, f"{url}change/")
    assert without.get(f"{url}signals/").status_code == 403
    assert visitor(*VIEWER).get(f"{url}signals/").status_code == 403
    assert Client().get(f"{url}signals/").status_code == 302
    both = visitor(*VIEWER, "view_academy")
    assert both.get(f"{ACADEMIES}999999/signals/").status_code == 302
    assert "no message about it" in page(both, f"{url}signals/")

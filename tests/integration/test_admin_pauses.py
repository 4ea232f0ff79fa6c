"""Pauses in the Django admin: the banner on each page, and the forms that pause and resume."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pytest
from django.test import Client

from signalbus.ledger import operations as ledger
from signalbus.models import Operation, Pause
from signalbus.services.actors import code_actor
from signalbus.services.changes.pausing import pause, resume
from tasks.admissions.models import Academy
from tests.other_servers import DATABASE

from .admin_site import (
    DELIVERIES,
    MESSAGES,
    OPERATIONS,
    OPERATOR,
    VIEWER,
    add_delivery,
    add_message,
    page,
    visitor,
)
from .bus import connect

if TYPE_CHECKING:
    from typing import Any

    from signalbus import Signal

pytestmark = pytest.mark.usefixtures("database_url")

PAUSE = f"{DELIVERIES}pause/"
RESUME = f"{DELIVERIES}resume/"


@pytest.fixture
def database() -> str:
    """One database: the statements are those of the commands, which have tests on each."""
    return DATABASE or "sqlite"


@pytest.fixture
def operator(database_url: str) -> Client:
    """A user who may pause and resume."""
    return visitor(*OPERATOR, "view_academy")


@pytest.fixture
def receiver(signal: Signal) -> str:
    """A receiver that this process knows."""
    connect(signal, lambda **kwargs: None, "crm.sync")
    return "crm.sync"


def posted(client: Client, url: str, **fields: Any) -> str:
    """Send a form, and return the page that it leads to."""
    answer = client.post(url, fields, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def test_every_page_shows_what_is_paused(operator: Client, receiver: str):
    """What, by whom, since when and why, with links to what is held and, for an operator, to resume it."""
    pause("receiver", receiver, actor=code_actor("ana"), reason="provider <b>down</b>")
    academy = Academy.objects.create(name="A", slug="a")
    sent = add_message()
    delivery = add_delivery(message=sent)

    for url in (
        DELIVERIES, MESSAGES, OPERATIONS, f"{DELIVERIES}receivers/", f"{DELIVERIES}failures/",
        f"{DELIVERIES}{delivery.pk}/change/", f"{MESSAGES}{sent.id}/change/",
        f"{OPERATIONS}{Operation.objects.get().pk}/change/", f"/admin/admissions/academy/{academy.pk}/signals/",
        f"{PAUSE}?kind=queue",
    ):  # fmt: skip
        text = page(operator, url)
        assert "<strong>receiver crm.sync is paused</strong>, by ana since" in text, url
        assert "provider &lt;b&gt;down" in text
        assert f"{DELIVERIES}?q=receiver%3Acrm.sync&amp;state=held" in text
        assert f"{RESUME}?kind=receiver&amp;name=crm.sync" in text
    action = {"action": "retry_deliveries", "_selected_action": str(delivery.pk)}
    assert "receiver crm.sync is paused" in posted(operator, DELIVERIES, **action)
    assert "Resume" not in page(visitor(*VIEWER), DELIVERIES)


def test_a_pause_that_is_being_released_says_so(operator: Client, receiver: str):
    """It cannot be resumed again."""
    pause("receiver", receiver, actor=code_actor("ana"))
    resume("receiver", receiver, actor=code_actor("ana"), rate=1)

    text = page(operator, DELIVERIES)

    assert "receiver crm.sync is being released" in text
    assert "Resume" not in text


def test_a_receiver_is_paused_and_resumed(operator: Client, receiver: str):
    """The links lead to a form; it asks for a reason, an end and a rate. Both are in the audit log."""
    (link,) = re.findall(rf'href="({PAUSE}[^"]*crm.sync[^"]*)"', page(operator, f"{DELIVERIES}receivers/"))
    form = page(operator, html.unescape(link))
    assert "Pause the receiver crm.sync?" in form
    assert not Pause.objects.exists()

    told = posted(operator, PAUSE, kind="receiver", name="crm.sync", until="8h", reason=" provider down ")

    assert "The receiver crm.sync is paused: the workers obey within 5 seconds." in told
    (paused,) = ledger.pauses()
    assert paused.until is not None
    assert paused.reason == "provider down"
    assert round((paused.until - paused.since).total_seconds()) == 8 * 3600
    assert "Resume the receiver crm.sync?" in page(operator, RESUME, kind="receiver", name="crm.sync")
    assert ledger.pauses()[0].resumed_at is None
    told = posted(operator, RESUME, kind="receiver", name="crm.sync", rate="20", reason="back")
    assert "The receiver crm.sync is resumed: 0 held deliveries are released." in told
    assert ledger.pauses()[0].rate == 20
    log = Operation.objects.order_by("pk")
    assert [(each.kind, each.through, each.reason) for each in log] == [
        ("pause", "admin", "provider down"),
        ("resume", "admin", "back"),
    ]


@pytest.mark.parametrize(
    ("url", "fields", "told"),
    [
        (PAUSE, {"kind": "receiver", "name": "crm.synk"}, "Did you mean &#x27;crm.sync&#x27;?"),
        (PAUSE, {"kind": "receiver", "name": ""}, "is no name of a receiver"),
        (PAUSE, {"kind": "filter", "name": "state:dead"}, "cannot be told before a delivery runs"),
        (PAUSE, {"kind": "filter", "name": "<script>"}, "&lt;script&gt;"),
        (RESUME, {"kind": "receiver", "name": "crm.sync"}, "Nothing is paused."),
        (RESUME, {"kind": "receiver", "name": "crm.sync", "rate": "x"}, "The rate must be a number"),
        (RESUME, {"kind": "receiver", "name": "crm.sync", "rate": "-1"}, "The rate is -1.0"),
        (RESUME, {"kind": "receiver", "name": "crm.sync", "rate": "1e999"}, "The rate must be a number"),
    ],
)
def test_bad_input_a_wrong_pause_says_why(operator: Client, receiver: str, url: str, fields: dict[str, str], told: str):
    """The form is shown again, and nothing is paused."""
    assert told in posted(operator, url, **fields)
    assert not Pause.objects.exists()


def test_bad_input_an_unknown_kind_is_refused(operator: Client):
    """Neither form has it."""
    for url in (PAUSE, RESUME):
        assert operator.get(url, {"kind": "<script>", "name": "x"}).status_code == 400
        assert operator.post(url, {"name": "x"}).status_code == 400


@pytest.mark.parametrize("permissions", [(), VIEWER, ("change_delivery", "view_payload")])
def test_pausing_needs_the_permission_to_operate(receiver: str, permissions: tuple[str, ...]):
    """Neither form is shown without it, and neither does anything; another site's form does nothing either."""
    client, fields = visitor(*permissions), {"kind": "receiver", "name": receiver}
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = visitor(*OPERATOR).cookies

    for url in (PAUSE, RESUME):
        assert client.get(url, fields).status_code == 403
        assert client.post(url, fields).status_code == 403
        assert strict.post(url, fields).status_code == 403
    assert not Pause.objects.exists()

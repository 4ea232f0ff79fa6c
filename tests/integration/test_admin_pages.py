"""The pages of the Django admin: what they show, and what they cost."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signalbus.admin import keyset_pages, message_pages, read_only
from signalbus.ledger.base.clock import later
from signalbus.models import Delivery, FailedAttempt
from signalbus.pages import bounded_search

from .admin_site import DELIVERIES, MESSAGES, READER, VIEWER, add_delivery, add_message, page, sealed_message, visitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client

pytestmark = pytest.mark.usefixtures("database_url")


@pytest.fixture
def viewer(database_url: str) -> Client:
    """A user who may see deliveries, and not their payloads."""
    return visitor(*VIEWER)


@pytest.fixture
def reader(database_url: str) -> Client:
    """A user who may see payloads too."""
    return visitor(*READER)


def listed(text: str) -> list[str]:
    """Return the ids of a list's rows, in their order."""
    return re.findall(r"/(?:delivery|storedmessage)/([0-9a-f-]{36})/change/", text)


def ids(deliveries: list[Delivery]) -> list[str]:
    """Return the ids of deliveries as a list has them: the youngest first."""
    return [str(each.pk) for each in reversed(deliveries)]


def pages_of(client: Client, url: str, **parameters: Any) -> Iterator[list[str]]:
    """Follow the link to older rows until there is none."""
    while True:
        text = page(client, url, **parameters)
        yield listed(text)
        following = re.search(r'href="\?([^"]*after=([0-9a-f-]{36})[^"]*)">(Older|Search older)', text)
        if following is None:
            return
        parameters["after"] = following[2]


def test_the_list_shows_the_state_of_each_delivery(viewer: Client):
    """State, names, subject, error and time are in its row."""
    add_delivery("crm.sync", "done")
    about = add_message("shop.refunded", subject="shop.Order 42")
    add_delivery("mail.send", "pending", about, attempts=2, error="ConnectTimeout: smtp", due_at=later(250))
    add_delivery("sms.send", "held", about, held_reason="paused by ana")

    text = page(viewer, DELIVERIES)

    assert "shop.refunded → mail.send" in text
    assert "shop.Order 42" in text
    assert "ConnectTimeout: smtp" in text
    assert re.search(r"<time [^>]*>in [34] min</time>", text)
    assert "held: paused by ana" in text
    assert "3 deliveries" in text


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"state": "dead"}, [1, 0]),
        ({"state": "done"}, [2]),
        ({"state": "held"}, []),
        ({"state": "pending"}, [3]),
        ({"q": "receiver:crm.*"}, [3, 0]),
        ({"q": "receiver:crm.*", "state": "dead"}, [0]),
        ({"q": "subject:admissions.cohort:7"}, [2]),
        ({"q": "error:'*no such*'"}, [1]),
        ({"q": "state:dead,pending signal:shop.*", "since": "1h"}, [3, 1, 0]),
    ],
)
def test_the_list_takes_filters(viewer: Client, parameters: dict[str, str], found: list[int]):
    """The box takes the words of the commands; the filters beside the list add theirs."""
    rows = [
        add_delivery("crm.sync", "dead"),
        add_delivery("mail.send", "dead", error="KeyError: no such key"),
        add_delivery("search.index", "done", add_message(subject="admissions.Cohort 7")),
        add_delivery("crm.tag", "pending"),
    ]

    assert listed(page(viewer, DELIVERIES, **parameters)) == [str(rows[index].pk) for index in found]


@pytest.mark.parametrize(
    ("parameters", "remedy"),
    [
        ({"q": "crm.sync"}, "write words as state:dead"),
        ({"q": "stat:dead"}, "did you mean &#x27;state&#x27;"),
        ({"state": "gone"}, "no such state"),
        ({"since": "yesterday"}, "give an age"),
        ({"q": "error:'open"}, "close the quotes"),
        ({"q": "x" * 5000}, "at most 1,000 characters"),
    ],
)
def test_bad_input_an_invalid_search_finds_nothing_and_says_why(
    viewer: Client, parameters: dict[str, str], remedy: str
):
    """A wrong filter must not show everything: an action would take it all."""
    add_delivery()

    text = page(viewer, DELIVERIES, **parameters)

    assert remedy in text
    assert listed(text) == []


def test_an_id_in_the_search_box_leads_to_its_page(viewer: Client):
    """The id may be that of a delivery or a message; an unknown one is an error like any other wrong word."""
    delivery = add_delivery()

    for wanted, url in ((delivery.pk, DELIVERIES), (delivery.message_id, MESSAGES)):
        assert viewer.get(DELIVERIES, {"q": str(wanted)}).headers["Location"] == f"{url}{wanted}/change/"
    assert "is no word of a filter" in page(viewer, DELIVERIES, q="0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b")


@pytest.mark.parametrize("parameters", [{}, {"q": "receiver:crm.*"}, {"state": "dead"}])
def test_pages_show_each_row_once(viewer: Client, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, str]):
    """A page begins after the last row of the page before; rows that arrive meanwhile move nothing."""
    monkeypatch.setattr(read_only.ReadOnlyAdmin, "list_per_page", 3)
    rows = [add_delivery("crm.sync") for _ in range(8)]

    found = []
    for shown in pages_of(viewer, DELIVERIES, **parameters):
        found.append(shown)
        add_delivery("crm.sync")

    assert [len(each) for each in found] == [3, 3, 2]
    assert [key for keys in found for key in keys] == ids(rows)


def test_a_search_without_an_index_continues_where_it_stopped(viewer: Client, monkeypatch: pytest.MonkeyPatch):
    """It looks at a bounded number of rows, says so, and finds the rest from there."""
    monkeypatch.setattr(bounded_search, "SCANNED", 4)
    rare = [add_delivery("rare") if number in {1, 9} else add_delivery("often") for number in range(12)]

    text = page(viewer, DELIVERIES, q="receiver:rare")
    found = list(pages_of(viewer, DELIVERIES, q="receiver:rare"))

    assert "were looked at" in text
    assert found == [[str(rare[9].pk)], [], [str(rare[1].pk)]]
    if connection.features.supports_partial_indexes:
        assert "were looked at" not in page(viewer, DELIVERIES, state="dead")
    assert "were looked at" not in page(viewer, DELIVERIES, q="subject:admissions.cohort:1")


def test_the_count_of_a_list_is_limited(viewer: Client, monkeypatch: pytest.MonkeyPatch):
    """A large ledger is not counted for a page."""
    monkeypatch.setattr(keyset_pages, "COUNTED", 3)
    for _ in range(4):
        add_delivery()

    assert "3+ deliveries" in page(viewer, DELIVERIES)
    assert "1 delivery" in page(viewer, DELIVERIES, q=f"id:{Delivery.objects.all()[0].pk}")


def test_the_page_of_a_delivery_shows_all_that_is_recorded(viewer: Client):
    """The page shows its errors, also of attempts before one that succeeded, its times, and the message's other
    deliveries.
    """
    sent = add_message("shop.order_paid", subject="shop.Order 42")
    delivery = add_delivery(
        "crm.sync", "done", sent, attempts=2, worker="web-3 4711", runtime_ms=1340, traceback="Traceback\n  line 31"
    )
    FailedAttempt.objects.create(
        delivery=delivery, number=1, ended_at=timezone.now(), runtime_ms=30002, worker="web-3 4711",
        error="ConnectTimeout: crm", error_group="ab", traceback="Traceback\n  line 7",
    )  # fmt: skip
    other = add_delivery("mail.send", "dead", sent, error="KeyError: 'slug'")

    text = page(viewer, f"{DELIVERIES}{delivery.pk}/change/")

    for told in ("done", "shop.Order 42", "web-3 4711", "1,340 ms", "line 31", "ConnectTimeout: crm", "line 7"):
        assert told in text
    assert f"{MESSAGES}{sent.id}/change/" in text
    assert f'{DELIVERIES}{other.pk}/change/">mail.send</a>' in text
    assert "KeyError: &#x27;slug&#x27;" in text


def test_a_payload_is_shown_with_its_own_permission_only(viewer: Client, reader: Client):
    """Secrets are hidden at every depth, for everybody."""
    sent = add_message(payload={"order": 42, "deep": [{"api_token": "hunter2", "more": ({"PASSWORD": "hunter3"},)}]})
    delivery = add_delivery(message=sent)

    for url in (f"{DELIVERIES}{delivery.pk}/change/", f"{MESSAGES}{sent.id}/change/"):
        assert "You need the permission signalbus.view_payload" in page(viewer, url)
        assert "api_token" not in page(viewer, url)
        text = page(reader, url)
        assert "&quot;order&quot;: 42" in text
        assert "api_token" in text
        assert "hunter" not in text


def test_a_message_shows_its_cascade(viewer: Client, monkeypatch: pytest.MonkeyPatch):
    """Each message is below the one whose receiver sent it, with its deliveries."""
    root = add_message("shop.order_paid", context={"tenant": "acme", "session_token": "hunter2"})
    child = add_message("crm.contact_changed", parent=root)
    for receiver, message in (("crm.sync", root), ("search.index", child)):
        add_delivery(receiver, "done", message)

    text = page(viewer, f"{MESSAGES}{child.id}/change/")

    tree = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text[text.index('class="signalbus-tree"') :]))
    order = [tree.index(word) for word in ("shop.order_paid", "crm.sync", "crm.contact_changed", "search.index")]
    assert order == sorted(order)
    assert f"a receiver of {root.id}" in text
    root_page = page(viewer, f"{MESSAGES}{root.id}/change/")
    assert "acme" in root_page
    assert "hunter2" not in root_page
    monkeypatch.setattr(message_pages, "NEAR", 1)
    for _ in range(2):
        alone = add_message()
    assert "Look at more" in page(viewer, f"{MESSAGES}{root.id}/change/")
    assert "Look at more" not in page(viewer, f"{MESSAGES}{root.id}/change/", far=1)
    assert "this message alone" in page(viewer, f"{MESSAGES}{alone.id}/change/")


def test_messages_are_listed_and_searched(viewer: Client):
    """Messages are found by signal, subject and age; a word about deliveries is an error."""
    first = add_message("shop.order_paid", subject="admissions.Cohort 7")
    second = add_message("shop.refunded")

    assert listed(page(viewer, MESSAGES)) == [str(second.id), str(first.id)]
    assert listed(page(viewer, MESSAGES, q="signal:shop.ord*")) == [str(first.id)]
    assert listed(page(viewer, MESSAGES, q="subject:admissions.cohort:7", since="1h")) == [str(first.id)]
    assert listed(page(viewer, MESSAGES, q=f"message:{second.id}")) == [str(second.id)]
    assert "Messages have no &#x27;state&#x27;" in page(viewer, MESSAGES, q="state:dead")


def test_a_text_that_was_not_verified_is_not_read(reader: Client):
    """Neither the payload nor the bytes of such a text are shown."""
    sealed = sealed_message("1.forged<script>.body")
    delivery = Delivery.objects.create(
        id=sealed.pk, message=sealed, state="dead", due_at=timezone.now(), created_at=timezone.now()
    )

    for url in (f"{DELIVERIES}{delivery.pk}/change/", f"{MESSAGES}{sealed.pk}/change/"):
        text = page(reader, url)
        assert "It cannot be read here" in text
        assert "forged" not in text


@pytest.mark.parametrize(
    ("url", "parameters", "most"),
    [
        (DELIVERIES, {}, 3),
        (DELIVERIES, {"state": "dead"}, 4),
        (DELIVERIES, {"q": "receiver:crm.*", "since": "1h"}, 6),
        (MESSAGES, {}, 3),
        ("delivery", {}, 6),
        ("message", {}, 9),
    ],
)
def test_a_page_takes_few_bounded_queries(viewer: Client, url: str, parameters: dict[str, str], most: int):
    """The number of queries does not depend on the rows; lists have a limit, and nothing is counted."""
    sent = add_message()
    rows = [add_delivery(f"crm.{number}", "dead", sent) for number in range(20)]
    addresses = {"delivery": f"{DELIVERIES}{rows[0].pk}/change/", "message": f"{MESSAGES}{sent.id}/change/"}
    address = addresses.get(url, url)

    with CaptureQueriesContext(connection) as asked:
        page(viewer, address, **parameters)

    ours = [query["sql"] for query in asked if "signalbus_" in query["sql"] and "auth_" not in query["sql"]]
    assert len(ours) <= most, ours
    assert not [sql for sql in ours if "COUNT(" in sql]
    bound = r"LIMIT \d+|[\"`](id|message|message_id|delivery_id)[\"`] (=|IN)"
    unbounded = [sql for sql in ours if not re.search(bound, sql)]
    assert unbounded == []


def test_a_project_without_the_admin_does_not_import_the_pages():
    """Such a project pays nothing for the pages."""
    code = (
        "import django, sys; django.setup(); "
        "print([name for name in sys.modules if name.startswith(('signalbus.admin', 'django.contrib.admin'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"DJANGO_SETTINGS_MODULE": "config.settings", "PATH": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"

"""Retry and discard in the Django admin: the preview, what is changed, and what is written to the audit log."""

from __future__ import annotations

import html
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.utils import timezone

from signalbus.admin import bulk_changes, read_only
from signalbus.models import Delivery, Operation
from signalbus.receiving.sweeping.bulk_progress import do_all_steps
from signalbus.wire.message import uuid7
from tests.other_servers import DATABASE

from .admin_site import (
    DELIVERIES,
    OPERATIONS,
    OPERATOR,
    READER,
    add_delivery,
    add_message,
    page,
    sealed_message,
    visitor,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.usefixtures("database_url")

CHANGE = f"{DELIVERIES}change-deliveries/"


@pytest.fixture
def database() -> str:
    """One database: the statements are those of the command, which has tests on each."""
    return DATABASE or "sqlite"


@pytest.fixture
def operator(database_url: str) -> Client:
    """A user who may retry and discard."""
    return visitor(*OPERATOR)


def choose(client: Client, action: str, ticked: Iterable[Delivery], query: str = "", *, all_of_it: bool = False) -> str:
    """Choose an action of the list, and return the page that it leads to."""
    form = {
        "action": f"{action}_deliveries",
        "_selected_action": [str(each.pk) for each in ticked],
        "select_across": "1" if all_of_it else "0",
        "index": "0",
    }
    answer = client.post(f"{DELIVERIES}?{query}", form, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def form_of(text: str) -> dict[str, Any]:
    """Return the hidden fields of the preview's form."""
    fields: dict[str, Any] = {}
    for name, value in re.findall(r'<input type="hidden" name="(verb|filter|after|id)" value="([^"]*)">', text):
        fields.setdefault(name, []).append(html.unescape(value))
    return fields


def states() -> list[str]:
    """Return the states of all deliveries, the oldest first."""
    return list(Delivery.objects.order_by("pk").values_list("state", flat=True))


def test_selected_deliveries_are_previewed_and_then_retried(operator: Client):
    """The preview says how many, since when and for which receivers; the log says who, what and why."""
    chosen = [add_delivery("crm.sync"), add_delivery("mail.send"), add_delivery("mail.send", "done")]
    add_delivery("other")

    text = choose(operator, "retry", chosen)

    assert "Retry 3 deliveries?" in text
    assert "1 will be left alone" in text
    assert re.search(r"<td>mail.send</td><td>2</td>", text)
    assert states() == ["dead", "dead", "done", "dead"]
    answer = operator.post(CHANGE, {**form_of(text), "reason": "after fix 812"}, follow=True)
    assert "2 deliveries are due again. 1 left alone" in answer.content.decode()
    assert states() == ["pending", "pending", "done", "dead"]
    entry = Operation.objects.get()
    assert (entry.kind, entry.through, entry.reason, entry.counts) == (
        "retry",
        "admin",
        "after fix 812",
        {"retried": 2},
    )
    assert entry.by.startswith("user-")
    assert set(entry.filter["ids"]) == {str(each.pk) for each in chosen}


def test_discarding_all_includes_deliveries_beyond_the_page(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """The filter counts, whatever page was shown; what was sent later is left alone."""
    monkeypatch.setattr(read_only.ReadOnlyAdmin, "list_per_page", 2)
    rows = [add_delivery("crm.sync") for _ in range(5)]
    other = add_delivery("mail.send")

    text = choose(operator, "discard", rows[:1], "q=receiver:crm.*&state=dead", all_of_it=True)
    later = add_delivery("crm.sync")

    assert "Discard 5 deliveries?" in text
    assert "state:dead" in text
    answer = operator.post(CHANGE, {**form_of(text), "reason": "test data"}, follow=True)
    assert "5 deliveries are discarded." in answer.content.decode()
    assert Delivery.objects.filter(state="discarded").count() == 5
    assert set(Delivery.objects.filter(state="dead")) == {other, later}
    assert "receiver:crm.* state:dead until:" in Operation.objects.get().filter["filter"].replace("'", "")


def test_a_filter_without_a_state_selects_nothing_to_change(operator: Client):
    """Otherwise a click on "all" would take what waits, and what was given up on purpose."""
    rows = [add_delivery(), add_delivery("waits", "pending")]

    assert "Choose a state first" in choose(operator, "retry", rows, "q=signal:shop.*", all_of_it=True)
    assert operator.post(CHANGE, {"verb": "retry", "filter": "signal:shop.*"}).status_code == 400
    assert states() == ["dead", "pending"]


def test_changing_many_deliveries_needs_a_reason(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """The reason is in the audit log."""
    monkeypatch.setattr(bulk_changes, "NEEDS_REASON", 1)
    rows = [add_delivery(), add_delivery()]

    form = form_of(choose(operator, "retry", rows))

    assert "give a reason" in operator.post(CHANGE, {**form, "reason": "  "}, follow=True).content.decode()
    assert states() == ["dead", "dead"]
    operator.post(CHANGE, {**form, "reason": "fixed"})
    assert states() == ["pending", "pending"]


def test_a_limited_number_can_be_ticked(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """More are chosen by a filter."""
    monkeypatch.setattr(bulk_changes, "MOST", 2)
    rows = [add_delivery() for _ in range(3)]

    assert "At most 2 deliveries" in choose(operator, "retry", rows)


def start(operator: Client, action: str, monkeypatch: pytest.MonkeyPatch, **fields: str) -> tuple[str, int]:
    """Start an operation on three deliveries; return the page that the form leads to, and the operation's number."""
    monkeypatch.setattr(bulk_changes, "MOST", 2)
    rows = [add_delivery() for _ in range(3)]
    text = choose(operator, action, rows[:1], "state=dead", all_of_it=True)
    assert f"{action.capitalize()} at least 2 deliveries?" in text
    assert "The workers do it" in text
    answer = operator.post(CHANGE, {**form_of(text), "reason": "after fix 812", **fields}, follow=True)
    return answer.content.decode(), Operation.objects.latest("pk").pk


def test_many_deliveries_are_left_to_the_workers(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """The form starts an operation, whose page shows the progress; the request changes no delivery."""
    text, number = start(operator, "discard", monkeypatch, rate="1000/s")

    assert "no worker has begun it" in text
    assert states() == ["dead", "dead", "dead"]
    row = Operation.objects.get(pk=number)
    assert (row.kind, row.rate, row.reason, row.state, row.through) == (
        "discard", 1000.0, "after fix 812", "waiting", "admin",
    )  # fmt: skip
    Operation.objects.update(rate=None)
    do_all_steps()
    assert states() == ["discarded", "discarded", "discarded"]
    text = page(operator, f"{OPERATIONS}{number}/change/")
    assert "3 of 3 discarded" in text
    assert "/steer/" not in text


def test_an_operation_is_paused_resumed_and_cancelled(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """Its page has the buttons that its state allows; the audit log has each press."""
    text, number = start(operator, "retry", monkeypatch)
    for change, state, following in (
        ("pause", "paused", {"resume", "cancel"}),
        ("resume", "waiting", {"pause", "cancel"}),
        ("cancel", "cancelled", set()),
    ):
        assert f'name="change" value="{change}"' in text
        answer = operator.post(f"{OPERATIONS}{number}/steer/", {"change": change, "reason": "lunch"}, follow=True)
        text = answer.content.decode()
        assert Operation.objects.get(pk=number).state == state
        assert set(re.findall(r'name="change" value="(\w+)"', text)) == following
        entry = Operation.objects.latest("pk")
        assert (entry.kind, entry.filter, entry.reason) == (change, {"operation": number}, "lunch")
    answer = operator.post(f"{OPERATIONS}{number}/steer/", {"change": "cancel"}, follow=True)
    assert "is cancelled: it has ended" in answer.content.decode()
    assert states() == ["dead", "dead", "dead"]


def test_the_page_of_a_stopped_operation_shows_what_failed_again(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """The error is escaped."""
    _, number = start(operator, "retry", monkeypatch)
    do_all_steps()
    first = Delivery.objects.order_by("pk")[0]
    Delivery.objects.filter(pk=first.pk).update(
        state="dead", attempts=2, allowance=1, error="<script>x", failed_at=timezone.now(), error_group="abc"
    )
    do_all_steps()

    text = page(operator, f"{OPERATIONS}{number}/change/")
    assert Operation.objects.get(pk=number).state == "stopped"
    assert "1 of 3 retried, 0 done, 1 failed again" in text
    assert "&lt;script&gt;x" in text
    assert "<script>x" not in text
    assert str(first.pk) in text


def test_users_without_the_permission_do_not_steer_an_operation(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """They see no buttons, and neither a form nor a GET changes anything."""
    _, number = start(operator, "retry", monkeypatch)
    reader, url = visitor(*READER), f"{OPERATIONS}{number}/steer/"

    assert "no worker has begun it" in page(reader, f"{OPERATIONS}{number}/change/")
    assert "/steer/" not in page(reader, f"{OPERATIONS}{number}/change/")
    assert reader.post(url, {"change": "cancel"}).status_code == 403
    assert visitor().post(url, {"change": "cancel"}).status_code == 403
    assert operator.get(url, {"change": "cancel"}).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = operator.cookies
    assert strict.post(url, {"change": "cancel"}).status_code == 403
    assert Operation.objects.get(pk=number).state == "waiting"


def test_bad_input_of_a_form_that_steers_is_refused(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """A number that is none of an operation in bulk is not found; a wrong rate starts nothing."""
    _, number = start(operator, "retry", monkeypatch)

    assert operator.post(f"{OPERATIONS}{number}/steer/", {"change": "delete"}).status_code == 400
    for wrong in (number + 1, 10**40):
        assert operator.post(f"{OPERATIONS}{wrong}/steer/", {"change": "cancel"}).status_code == 404
    for rate in ("fast", "0/s", "-1", "9" * 50, "1e9", "\u0661/s"):
        text, latest = start(operator, "retry", monkeypatch, rate=rate)
        assert "is no rate" in text
        assert latest == number


def test_an_action_on_a_later_page_chooses_only_older_deliveries(operator: Client):
    """What is younger than the page was not looked at, and is not changed."""
    rows = [add_delivery() for _ in range(3)]

    text = choose(operator, "retry", rows[:1], f"state=dead&after={rows[2].pk}", all_of_it=True)
    operator.post(CHANGE, form_of(text))

    assert "Retry 2 deliveries?" in text
    assert states() == ["pending", "pending", "dead"]


def test_a_delivery_shows_the_buttons_that_the_user_may_press(operator: Client):
    """They lead to the preview of this one delivery."""
    delivery = add_delivery()
    url = f"{DELIVERIES}{delivery.pk}/change/"

    assert 'name="action" value="retry_deliveries"' in page(operator, url)
    assert "retry_deliveries" not in page(visitor(*READER), url)
    answer = operator.post(DELIVERIES, {"action": "retry_deliveries", "_selected_action": str(delivery.pk)})
    assert "Retry 1 delivery?" in answer.content.decode()


def test_a_text_that_was_not_verified_is_not_retried(operator: Client):
    """Such a text can only be discarded."""
    row = Delivery.objects.create(
        id=uuid7(), message=sealed_message("forged"), state="dead", due_at=timezone.now(), created_at=timezone.now()
    )

    told = operator.post(CHANGE, {"verb": "retry", "id": [str(row.pk)]}, follow=True).content.decode()

    assert "0 deliveries are due again. 1 left alone" in told
    assert states() == ["dead"]


@pytest.mark.parametrize("permissions", [(), READER, ("operate_delivery",)])
def test_users_without_the_permission_change_nothing(permissions: tuple[str, ...], caplog: pytest.LogCaptureFixture):
    """Neither through the action nor by the form's address; who may not see the list does not get it either."""
    client, delivery = visitor(*permissions), add_delivery()
    may_view, may_operate = "view_delivery" in permissions, "operate_delivery" in permissions

    action = client.post(DELIVERIES, {"action": "retry_deliveries", "_selected_action": str(delivery.pk), "index": "0"})
    with caplog.at_level(logging.WARNING, "signalbus.audit"):
        form = client.post(CHANGE, {"verb": "retry", "id": [str(delivery.pk)]})

    if not may_view:
        assert action.status_code == 403
    if not may_operate:
        assert states() == ["dead"]
    assert form.status_code == (302 if may_operate else 403)
    assert ("lacks the permission signalbus.operate_delivery" in caplog.text) is not may_operate


def test_a_form_of_another_site_changes_nothing():
    """A request without the token is refused, and so is a GET."""
    delivery = add_delivery()
    trusting = visitor(*OPERATOR)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = trusting.cookies

    assert strict.post(CHANGE, {"verb": "retry", "id": [str(delivery.pk)]}).status_code == 403
    assert strict.post(DELIVERIES, {"action": "retry_deliveries", "_selected_action": "1"}).status_code == 403
    assert trusting.get(CHANGE, {"verb": "retry", "id": [str(delivery.pk)]}).status_code == 405
    assert states() == ["dead"]


@pytest.mark.parametrize(
    "form",
    [
        {}, {"verb": "delete"}, {"verb": "retry", "id": ["x"]}, {"verb": "retry", "filter": "state:gone"},
        {"verb": "retry", "filter": "'"}, {"verb": "retry", "filter": "x" * 5000},
    ],
)  # fmt: skip
def test_bad_input_a_form_that_is_not_ours_is_refused(operator: Client, form: dict[str, Any]):
    """Such a form changes nothing."""
    add_delivery()

    assert operator.post(CHANGE, form).status_code == 400
    assert states() == ["dead"]


def test_bad_input_invalid_ids_are_an_error(operator: Client):
    """Django's own list would fail with a page of errors."""
    answer = operator.post(
        DELIVERIES, {"action": "retry_deliveries", "_selected_action": "<script>", "index": "0"}, follow=True
    )

    assert "What was chosen are no ids" in answer.content.decode()


def test_the_preview_shows_hostile_names_escaped(operator: Client):
    """A receiver's id may hold anything."""
    rows = [add_delivery("<script>alert(1)</script>\u202e", "dead", add_message())]

    text = choose(operator, "retry", rows)

    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in text
    assert "\u202e" not in text

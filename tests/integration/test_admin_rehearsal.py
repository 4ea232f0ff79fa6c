"""The page of the Django admin that rehearses a delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.mail import send_mail
from django.test import Client

from signalbus.models import Delivery
from tasks.admissions.models import Academy
from tests.other_servers import DATABASE

from .admin_site import DELIVERIES, OPERATOR, VIEWER, add_delivery, add_message, page, visitor
from .bus import connect

if TYPE_CHECKING:
    from signalbus import Signal

pytestmark = pytest.mark.usefixtures("database_url")


@pytest.fixture
def database() -> str:
    """One database: the service has tests on each."""
    return DATABASE or "sqlite"


@pytest.fixture
def operator(database_url: str) -> Client:
    """A user who may rehearse."""
    return visitor(*OPERATOR, "view_payload")


def failed(signal: Signal, receiver: Any) -> Delivery:
    """Add a delivery to a receiver."""
    connect(signal, receiver, "crm.sync")
    return add_delivery("crm.sync", "dead", add_message(str(signal.name), {"number": 1}))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")  # Django 6.1: MAILERS
def test_a_rehearsal_shows_what_the_receiver_would_do(operator: Client, signal: Signal):
    """Nothing of it is kept, and no attempt is counted."""

    def writes(number: int, **kwargs: Any) -> None:
        Academy.objects.create(name="new", slug="new")
        send_mail("<b>hello</b>\u202e", "", None, ["ana@example.com"])

    row = failed(signal, writes)
    before = Delivery.objects.values().get()
    assert f"{DELIVERIES}{row.pk}/rehearse/" in page(operator, f"{DELIVERIES}{row.pk}/change/")

    text = operator.post(f"{DELIVERIES}{row.pk}/rehearse/").content.decode()

    assert "It would succeed." in text
    assert "create admissions.Academy" in text
    assert "default: INSERT INTO" in text
    assert "&lt;b&gt;hello" in text
    assert "\u202e" not in text
    assert not Academy.objects.exists()
    assert Delivery.objects.values().get() == before


def test_a_rehearsal_that_fails_shows_the_error(operator: Client, signal: Signal):
    """With its traceback, escaped."""

    def breaks(**kwargs: Any) -> None:
        raise ValueError("<script>alert(1)</script>\x1b[31m")

    text = operator.post(f"{DELIVERIES}{failed(signal, breaks).pk}/rehearse/").content.decode()

    assert "It would fail." in text
    assert "ValueError: &lt;script&gt;alert(1)" in text
    assert "line" in text
    assert "<script>alert" not in text
    assert "\x1b" not in text


def test_the_preview_of_a_retry_offers_to_rehearse_one(operator: Client):
    """The form leads to the rehearsal of a delivery that was chosen."""
    row = add_delivery()
    action = {"action": "retry_deliveries", "_selected_action": str(row.pk)}

    assert f'action="{DELIVERIES}{row.pk}/rehearse/"' in operator.post(DELIVERIES, action).content.decode()


def test_a_delivery_that_cannot_be_rehearsed_says_why(operator: Client):
    """The page of the delivery is shown again."""
    row = add_delivery("gone")

    answer = operator.post(f"{DELIVERIES}{row.pk}/rehearse/", follow=True)

    assert answer.redirect_chain[0][0] == f"{DELIVERIES}{row.pk}/change/"
    assert "Not rehearsed: gone is not connected to shop.order_paid" in answer.content.decode()


def test_a_rehearsal_needs_post_and_the_permissions_to_operate_and_to_see_payloads(operator: Client, signal: Signal):
    """A GET, another site's form, a viewer and an unknown id run nothing."""
    row = failed(signal, lambda **kwargs: pytest.fail("it ran"))
    url = f"{DELIVERIES}{row.pk}/rehearse/"
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = operator.cookies

    assert operator.get(url).status_code == 405
    assert strict.post(url).status_code == 403
    assert visitor(*VIEWER).post(url).status_code == 403
    assert visitor(*OPERATOR).post(url).status_code == 403  # it would show what was sent
    assert url not in page(visitor(*OPERATOR), f"{DELIVERIES}{row.pk}/change/")
    assert visitor().post(url).status_code == 403
    assert Client().post(url).status_code == 302
    assert operator.post(f"{DELIVERIES}{row.message_id}/rehearse/").status_code == 404
    assert operator.post(f"{DELIVERIES}x/rehearse/").status_code in {302, 404}

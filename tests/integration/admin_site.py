"""Make rows of the ledger and users with permissions, for the tests of the admin's pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from signalbus.ledger.base.clock import Now
from signalbus.ledger.base.deliveries import insert, new_delivery, row_of
from signalbus.models import Delivery, State, StoredMessage
from signalbus.wire.codec import encode
from signalbus.wire.message import Message, uuid7

if TYPE_CHECKING:
    from collections.abc import Mapping

DELIVERIES = "/admin/signalbus/delivery/"
MESSAGES = "/admin/signalbus/storedmessage/"
OPERATIONS = "/admin/signalbus/operation/"
VIEWER = ("view_delivery",)
READER = ("view_delivery", "view_payload")
OPERATOR = ("view_delivery", "operate_delivery")


def add_message(
    signal: str = "shop.order_paid",
    payload: Mapping[str, Any] | None = None,
    *,
    subject: str = "",
    parent: Message | None = None,
    context: Mapping[str, Any] | None = None,
    sender: Any = None,
) -> Message:
    """Add a message without deliveries."""
    text, version = encode(sender, payload or {})
    id_ = uuid7()
    root, sent_by = (parent.root, parent.id) if parent else (id_, None)
    message = Message(
        id=id_, signal=signal, payload=text, version=version, sent_at=datetime.now(UTC), root=root, parent=sent_by,
        context=context or {}, sender=None if sender is None else sender._meta.label,
    )  # fmt: skip
    row = row_of(message)
    row.subject = subject
    insert([row], [])
    return message


def add_delivery(
    receiver: str = "crm.sync", state: str = "dead", message: Message | None = None, **columns: Any
) -> Delivery:
    """Add a delivery, of a message of its own if none is given."""
    sent = add_message() if message is None else message
    if not State(state).facts.is_open:
        columns.setdefault("ended_at", Now())
    row = new_delivery(sent.id, receiver, None, state=State(state), **columns)
    Delivery.objects.bulk_create([row])
    return Delivery.objects.select_related("message").get(pk=row.pk)


def sealed_message(text: str) -> StoredMessage:
    """Add a text that nobody has verified."""
    return StoredMessage.objects.create(id=uuid7(), text=text, sealed=True, created_at=Now())


def visitor(*permissions: str, staff: bool = True) -> Client:
    """Return a client that is logged in as a user with permissions of ours, or of the checkout's apps."""
    user = get_user_model()._default_manager.create(username=f"user-{uuid7()}", is_staff=staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, url: str, **parameters: Any) -> str:
    """Return a page that is there."""
    answer = client.get(url, parameters)
    assert answer.status_code == 200, (answer.status_code, url)
    return answer.content.decode()

"""Each key of a filter selects rows, in each command that reads or changes deliveries, and in the admin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.core.management import CommandError
from django.db import connection, transaction
from django.test import override_settings

from signalbus import Retry
from signalbus.admin.message_pages import MessageAdmin
from signalbus.models import Delivery, StoredMessage
from signalbus.pages.bounded_search import find_keys
from signalbus.pages.delivery_search import search_deliveries
from tasks.admissions.models import Academy

from .bus import Bus, connect, new_signal
from .test_inspecting import run

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def failed(bus: Bus) -> dict[str, Delivery]:
    """Two deliveries that failed, by receiver: they differ in all that a filter can name."""
    parent, crm, mail = (new_signal(durable=True) for _ in range(3))
    academies = [Academy.objects.create(name=name, slug=name) for name in ("a", "b")]

    def broken(**kwargs: Any) -> None:
        raise KeyError("slug")

    def away(**kwargs: Any) -> None:
        raise ConnectionError("timed out")

    connect(parent, lambda **kwargs: crm.send(None, instance=academies[0]), "parent.receiver")
    connect(crm, broken, "crm.sync", retry=Retry(max_attempts=1), queue="email")
    connect(mail, away, "mail.post", retry=Retry(max_attempts=3))
    parent.send(None)
    bus.work()
    mail.send(None, instance=academies[1])
    with override_settings(SIGNALBUS={"RELEASE": "r1"}):
        bus.work("email")
    with override_settings(SIGNALBUS={"RELEASE": "r2"}):
        bus.work()
        Delivery.objects.filter(receiver="mail.post").update(due_at="2020-01-01T00:00Z", worker="here:1")
        bus.come_again()
    Delivery.objects.filter(receiver="mail.post").update(worker="host-b:2")
    Delivery.objects.filter(receiver="crm.sync").update(worker="host-a:1")
    return {row.receiver: row for row in Delivery.objects.select_related("message").exclude(state="done")}


# Words that select the delivery to crm.sync and not that to mail.post.
WORDS: dict[str, Callable[[Delivery], str]] = {
    "signal": lambda row: f"signal:{row.message.signal}",
    "receiver": lambda row: "receiver:crm.*",
    "state": lambda row: "state:dead",
    "queue": lambda row: "queue:email",
    "subject": lambda row: f"subject:admissions.academy:{Academy.objects.get(name='a').pk}",
    "error": lambda row: "error:KeyError",
    "part of an error": lambda row: "error:*slug*",
    "group": lambda row: f"group:{row.error_group}",
    "message": lambda row: f"message:{row.message_id}",
    "id": lambda row: f"id:{row.pk}",
    "root": lambda row: f"root:{row.message.root}",
    "worker": lambda row: "worker:host-a:*",
    "release": lambda row: "release:r1",
    "attempts": lambda row: "attempts:<2",
    "since": lambda row: f"until:{row.created_at.isoformat()}",
}


def test_each_word_selects_rows_in_each_command(failed: dict[str, Delivery]):
    """`failed`, `failed --group`, `retry` and `discard` agree, and so does the admin's search."""
    wanted = failed["crm.sync"]
    for name, word_of in WORDS.items():
        word = word_of(wanted)
        assert [each["id"] for each in json.loads(run("failed", word, "--json"))] == [str(wanted.pk)], name
        groups = json.loads(run("failed", "--group", word, "--json"))["groups"]
        assert [each["receiver"] for each in groups] == ["crm.sync"], name
        for command in ("retry", "discard"):
            preview = run(command, word, "--dry-run")
            assert preview.startswith(f"{command} would be asked of 1 delivery."), name
            assert str(wanted.pk) in preview, name
        found = find_keys(Delivery.objects.exclude(state="done"), search_deliveries([word]), 10)
        assert found.keys == [wanted.pk], name


def test_a_change_obeys_a_word_that_names_another_table(failed: dict[str, Delivery]):
    """Not only a preview: what the words do not select stays as it is."""
    wanted = failed["crm.sync"]

    assert run("retry", "release:r1", f"root:{wanted.message.root}", "error:KeyError") == "1 delivery due again.\n"

    assert Delivery.objects.get(pk=wanted.pk).state == "pending"
    assert Delivery.objects.get(receiver="mail.post").allowance == 0


def test_a_root_selects_its_own_deliveries_and_those_of_its_cascade(failed: dict[str, Delivery]):
    """Also when the first message of the cascade is asked for."""
    root = failed["crm.sync"].message.root
    assert root is not None

    listed = json.loads(run("failed", f"root:{root}", "state:done,dead", "--json"))

    assert [each["receiver"] for each in listed] == ["crm.sync", "parent.receiver"]


def test_the_admins_messages_are_searched_by_root(failed: dict[str, Delivery]):
    """The condition on deliveries becomes one on messages."""
    root = failed["crm.sync"].message.root
    search = MessageAdmin(StoredMessage, admin.site).search_for([f"root:{root}"])

    found = find_keys(StoredMessage.objects.all(), search, 10)

    assert set(found.keys) == {root, failed["crm.sync"].message_id}
    assert search.is_indexed


def test_a_release_selects_what_failed_in_it_once(failed: dict[str, Delivery]):
    """A delivery whose attempts failed in a release is selected once; what succeeded keeps no release."""
    assert [each["receiver"] for each in json.loads(run("failed", "release:r2", "--json"))] == ["mail.post"]
    assert json.loads(run("failed", "release:r2", "attempts:>1", "--json"))
    assert json.loads(run("failed", "release:r*", "state:done", "--json")) == []
    with pytest.raises(CommandError, match="'x' is no id"):
        run("failed", "root:x")


@pytest.mark.skipif(not connection.features.supports_partial_indexes, reason="MariaDB has no partial indexes")
def test_the_deliveries_of_a_cascade_are_found_by_indexes(bus: Bus):
    """No table is read as a whole."""
    search = search_deliveries(["root:0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b"])
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # which is quicker for no rows at all
        plan = Delivery.objects.filter(search.condition).explain()
        of_messages = StoredMessage.objects.filter(root="0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b").explain()

    assert search.is_indexed
    assert "signalbus_cascade" in plan
    assert "signalbus_cascade" in of_messages

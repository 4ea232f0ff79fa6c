"""The web app retries and discards: a preview first, then ids at once, and filters by operations with progress."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import reverse
from django.utils import timezone

from signalbus.ledger import history
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, FailedAttempt, Operation, WorkerRecord
from signalbus.web.views import change_preview
from tests.other_servers import DATABASE
from tests.servers import wait_until

from .admin_site import OPERATOR, READER, add_delivery, visitor

if TYPE_CHECKING:
    from django.test import Client

pytestmark = pytest.mark.usefixtures("database_url")


@pytest.fixture
def database() -> str:
    """One database: the pages do not depend on it."""
    return DATABASE or "sqlite"


@pytest.fixture
def operator(database_url: str) -> Client:
    """A user who may see and change deliveries."""
    return visitor(*READER, *OPERATOR)


def url(name: str, *args: object) -> str:
    """Return the address of a page."""
    return reverse(f"signalbus_web:{name}", args=args)


def dead(number: int = 1, **columns: Any) -> list[Delivery]:
    """Add deliveries that are dead for one cause."""
    given = {"error": "KeyError: 'slug'", "error_group": "9f31", "failed_at": timezone.now(), "attempts": 3, **columns}
    return [add_delivery(**given) for _ in range(number)]


def states() -> dict[str, int]:
    """Return the numbers of deliveries by state."""
    found: dict[str, int] = {}
    for state in Delivery.objects.values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found


def test_a_preview_changes_nothing(operator: Client):
    """It shows numbers, states, receivers and examples, by POST and by GET."""
    ids = [str(row.pk) for row in dead(3)]
    for answer in (
        operator.post(url("preview"), {"verb": "retry", "id": ids}),
        operator.get(url("preview"), {"verb": "retry", "q": "group:9f31"}),
    ):
        shown = answer.content.decode()
        assert "Retry 3 deliveries" in shown
        assert "Nothing has happened yet" in shown
        assert "crm.<wbr>sync" in shown
    assert states() == {"dead": 3}
    assert not Operation.objects.exists()


def test_what_was_ticked_is_changed_at_once(operator: Client):
    """Each change is in the audit log with its reason; what runs or is done is left alone, and the page says so."""
    one, two = dead(2)
    done = add_delivery(state="done")
    answer = operator.post(url("change"), {"verb": "retry", "id": [one.pk, done.pk], "reason": "fixed"})

    shown = answer.content.decode()
    assert "1 delivery is due again" in shown
    assert "1 was left alone" in shown
    single = operator.post(url("change"), {"verb": "discard", "id": [two.pk]})
    assert single.headers["Location"] == url("delivery", two.pk)
    assert states() == {"pending": 1, "discarded": 1, "done": 1}
    assert [(row.kind, row.reason, row.through) for row in Operation.objects.order_by("id")] == [
        ("retry", "fixed", "web"), ("discard", "", "web"),
    ]  # fmt: skip


def test_what_a_filter_selects_is_an_operation(operator: Client):
    """The request only records it, with times that are fixed; its page shows what the sweepers have done."""
    dead(3)
    preview = operator.post(url("preview"), {"verb": "discard", "what": "all", "q": "group:9f31 since:2h"})
    text = preview.content.decode().split('name="filter" value="')[1].split('"')[0]
    assert "since:20" in text

    answer = operator.post(url("change"), {"verb": "discard", "filter": text, "reason": "test data", "rate": "100/s"})
    operation = Operation.objects.get()
    assert answer.headers["Location"] == url("operation", operation.pk)
    assert states() == {"dead": 3}
    assert "Waits for a sweeper" in operator.get(url("operation", operation.pk)).content.decode()

    wait_until(lambda: ledger.step(operation.pk) is None, what="the operation's end, at its rate")
    shown = operator.get(url("operation", operation.pk)).content.decode()
    assert states() == {"discarded": 3}
    assert "3 of 3" in shown
    assert "test data" in shown
    assert "test data" in operator.get(url("operations")).content.decode()


def test_an_operation_is_paused_resumed_and_cancelled(operator: Client):
    """Each step is in the audit log; what cannot be done in its state is an error on the page."""
    dead(2)
    operator.post(url("change"), {"verb": "retry", "filter": "group:9f31"})
    number = Operation.objects.get().pk
    for change, state in (("pause", "paused"), ("resume", "waiting"), ("cancel", "cancelled")):
        assert operator.post(url("steer", number), {"change": change}).status_code == 302
        assert Operation.objects.get(pk=number).state in {state, "running"}
    assert operator.post(url("steer", number), {"change": "pause"}).status_code == 400
    assert operator.post(url("steer", number), {"change": "destroy"}).status_code == 400
    assert operator.get(url("operation", 99999)).status_code == 404
    assert operator.post(url("steer", 99999), {"change": "pause"}).status_code == 404


def test_many_deliveries_need_a_reason(operator: Client, monkeypatch: pytest.MonkeyPatch):
    """Without one nothing is changed, and the page shows the preview again."""
    monkeypatch.setattr(change_preview, "NEEDS_REASON", 2)
    ids = [str(row.pk) for row in dead(3)]
    answer = operator.post(url("change"), {"verb": "retry", "id": ids, "reason": "  "})

    assert answer.status_code == 400
    assert "Give a reason" in answer.content.decode()
    assert states() == {"dead": 3}


@pytest.mark.parametrize(
    "form",
    [
        {}, {"verb": "delete", "id": "x"}, {"verb": "retry", "id": "x"}, {"verb": "retry", "filter": "receiver:crm.*"},
        {"verb": "retry", "filter": "nonsense"}, {"verb": "retry", "filter": "'"},
        {"verb": "retry", "filter": "state:dead", "rate": "fast"}, {"verb": "retry", "filter": "x" * 5000},
        {"verb": "retry", "filter": "state:dead", "rate": "-1"}, {"verb": "retry", "filter": "signal:\x00"},
    ],
)  # fmt: skip
def test_bad_input_a_form_that_was_changed_by_hand_changes_nothing(operator: Client, form: dict[str, str]):
    """Wrong verbs, ids, filters and rates are errors on the page."""
    dead()
    assert operator.post(url("change"), form).status_code == 400
    assert operator.post(url("preview"), form).status_code in {200, 400}
    assert states() == {"dead": 1}
    assert not Operation.objects.exists()


def test_buttons_lead_to_previews(operator: Client):
    """In the list, on a delivery's page, and beside each group of failures; a refused text is never retried."""
    (row,) = dead()
    for address in (url("deliveries"), url("delivery", row.pk), url("failures")):
        shown = operator.get(address).content.decode()
        assert url("preview") in shown
        assert "Retry…" in shown
        assert "Discard…" in shown


def test_a_step_of_a_retry_is_over_when_its_deliveries_have_ended(operator: Client):
    """While the first delivery waits for a worker, the page says that the first step runs."""
    dead(12)
    operator.post(url("change"), {"verb": "retry", "filter": "group:9f31"})
    number = Operation.objects.get().pk
    for _ in range(2):
        ledger.step(number)
    assert states() == {"dead": 11, "pending": 1}
    assert operator.get(url("operation", number)).content.decode().count("ended well") == 1  # of the figures

    Delivery.objects.filter(state="pending").update(state="done", ended_at=timezone.now())
    ledger.step(number)
    assert operator.get(url("operation", number)).content.decode().count("ended well") == 2


def run_release(release: str) -> None:
    """Let the only living worker run a release of the project's code."""
    WorkerRecord.objects.all().delete()
    described = {"host": "a", "pid": 1, "pool": "solo", "concurrency": 1, "release": release, "registry_digest": "x"}
    history.record_worker(f"worker of {release}", described)


def alerts() -> set[tuple[str, str]]:
    """Return the alerts that are raised, after a judgement, without those about workers."""
    history.judge_alerts()
    return {(each.kind, each.key) for each in history.open_alerts() if each.kind == "dead"}


def test_a_muted_cause_raises_no_alert_until_the_next_release(operator: Client):
    """It is listed last, with who muted it and why; another release ends it, and so does a person."""
    dead(2)
    dead(1, error_group="aa11")
    run_release("a1")
    assert alerts() == {("dead", "9f31"), ("dead", "aa11")}

    answer = operator.post(url("note"), {"kind": "mute", "group": "9f31", "text": "known: #812"})
    shown = operator.get(url("failures")).content.decode()
    assert answer.headers["Location"] == url("failures")
    assert alerts() == {("dead", "aa11")}
    assert "“known: #812”" in shown
    assert shown.index("group%3Aaa11") < shown.index("group%3A9f31")

    run_release("b2")
    assert alerts() == {("dead", "9f31"), ("dead", "aa11")}
    operator.post(url("note"), {"kind": "mute", "group": "9f31"})
    assert alerts() == {("dead", "aa11")}
    operator.post(url("note"), {"kind": "unmute", "group": "9f31"})
    assert alerts() == {("dead", "9f31"), ("dead", "aa11")}
    kept = Operation.objects.order_by("pk").values_list("kind", "filter", "details", "through")
    assert list(kept) == [
        (kind, {"group": "9f31"}, {"release": release}, "web")
        for kind, release in (("mute", "a1"), ("mute", "b2"), ("unmute", "b2"))
    ]


def test_a_mute_while_no_worker_is_alive_ends_with_the_first_release(operator: Client):
    """It does not hold under all later releases."""
    dead()
    operator.post(url("note"), {"kind": "mute", "group": "9f31"})
    assert alerts() == set()

    run_release("b2")

    assert alerts() == {("dead", "9f31")}


def test_a_note_about_a_cause_is_kept_and_shown(operator: Client):
    """One without a text is refused with the reason."""
    dead()
    assert operator.post(url("note"), {"kind": "note", "group": "9f31", "text": " "}).status_code == 400
    assert operator.post(url("note"), {"kind": "x", "group": "9f31", "text": "a"}).status_code == 400
    operator.post(url("note"), {"kind": "note", "group": "9f31", "text": "ask the <provider>"})

    assert "“ask the &lt;provider&gt;”" in operator.get(url("failures")).content.decode()
    assert Operation.objects.get().reason == "ask the <provider>"


def test_a_cause_that_began_with_the_running_release_is_marked(operator: Client):
    """A cause that an older release had too is not new, nor is one whose release is not known."""
    run_release("b2")
    for group, releases in (("new1", ["b2", "b2"]), ("old1", ["a1", "b2"]), ("none", ["", ""])):
        (delivery,) = dead(1, error_group=group)
        for number, release in enumerate(releases, 1):
            ended = timezone.now() - timedelta(minutes=10 - number)
            FailedAttempt.objects.create(
                delivery=delivery, number=number, ended_at=ended, error="KeyError", error_group=group, release=release
            )

    shown = operator.get(url("failures")).content.decode()

    assert shown.count("new in b2") == 1
    assert shown.index("new in b2") < shown.index("group%3Anew1")
    assert not any("new in b2" in part for part in shown.split("<li>") if "group%3Anew1" not in part)

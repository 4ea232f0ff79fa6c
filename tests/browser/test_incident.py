"""An incident, as a team on call plays it in the admin: each question is answered with at most three clicks."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone
from selenium.webdriver.common.keys import Keys

from signalbus.models import Delivery, Pause
from tasks.admissions.models import Academy
from tasks.marketing.models import FormEntry
from tests.browser.shop.signals import academy_opened
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.browser.chromium import Visitor
    from tests.servers import Worker

MESSAGES = 120
ROW_OF_THE_BUG = "//tr[contains(., 'KeyError')]"
MOST_CLICKS = 3
OBEYED_AFTER = timedelta(seconds=5.5)


def send(numbers: range) -> None:
    """Send a message about each academy."""
    Academy.objects.bulk_create(Academy(pk=each, name=f"Academy {each}", slug=f"a{each}") for each in numbers)
    rows = Academy.objects.in_bulk(numbers)
    academy_opened.send_many(Academy, [{"instance": rows[each], "number": each} for each in numbers])


def count(**condition: object) -> int:
    """Count deliveries."""
    return Delivery.objects.filter(**condition).count()


def begin(start_worker: Callable[[], Worker], faults: Path) -> None:
    """Start a worker, and let all messages fail in one receiver, and three in another one."""
    (faults / "bug").touch()
    (faults / "outage").touch()
    start_worker()
    send(range(1, MESSAGES + 1))
    wait_until(lambda: not count(ended_at=None), 30, "all messages to be processed")
    assert count(receiver="marketing.tag_academy", state="dead") == MESSAGES
    assert count(receiver="crm.sync", state="dead") == 3


def notice(visitor: Visitor) -> None:
    """See what fails, by cause."""
    visitor.open("/admin/")
    with visitor.question("notice, and group"):
        visitor.click("Deliveries")
        visitor.screenshot("admin-deliveries")
        visitor.click("Failures by cause")
    shown = visitor.text
    assert shown.index("KeyError: 'slug' 120 dead") < shown.index(
        "ConnectionError: crm.example.com did not answer 3 dead"
    )
    visitor.screenshot("admin-failures")


def stop(visitor: Visitor) -> None:
    """Pause the receiver with the bug."""
    with visitor.question("stop"):
        visitor.click("Pause its receiver…", ROW_OF_THE_BUG)
        visitor.type("#id_reason", "a bug in 2.4")
        visitor.click("Pause")
    assert "receiver marketing.tag_academy is paused, by ana since" in visitor.text


def find(visitor: Visitor) -> None:
    """Find what became of Academy 42: from its own page, and by the words of a filter."""
    visitor.open("/admin/admissions/academy/42/change/")
    with visitor.question("find Academy 42"):
        visitor.click("Signals")
        assert "crm.sync" in visitor.text
        visitor.screenshot("admin-signals")
        visitor.click("marketing.tag_academy")
    assert "KeyError: 'slug'" in visitor.text
    assert "is paused" in visitor.text
    visitor.screenshot("admin-delivery")
    visitor.open("/admin/signalbus/delivery/")
    with visitor.question("find Academy 42 by its words"):
        visitor.type("input[name=q]", "subject:admissions.academy:42").send_keys(Keys.ENTER)
    visitor.find("//*[contains(., '2 deliveries')]")


def rehearse(visitor: Visitor, faults: Path) -> None:
    """Rehearse one delivery of the bug before and after the fix."""
    visitor.open("/admin/signalbus/delivery/failures/")
    with visitor.question("rehearse one: it fails"):
        visitor.click("Retry…", ROW_OF_THE_BUG)
        visitor.click("Rehearse one (in a new tab)")
    assert "It would fail." in visitor.text
    visitor.close_tab()
    (faults / "bug").unlink()
    with visitor.question("rehearse one: it succeeds"):
        visitor.click("Rehearse one (in a new tab)")
    assert "It would succeed." in visitor.text
    assert "create marketing.FormEntry" in visitor.text
    assert not FormEntry.objects.exists()
    visitor.screenshot("admin-rehearsal")
    visitor.close_tab()


def resume(visitor: Visitor) -> None:
    """See that the pause holds a new delivery, and end it."""
    since = Pause.objects.get().since
    wait_until(lambda: timezone.now() - since > OBEYED_AFTER, what="the pause to be obeyed")
    send(range(MESSAGES + 1, MESSAGES + 2))
    wait_until(lambda: count(state="held") == 1, what="the delivery to be held")
    visitor.open("/admin/signalbus/delivery/receivers/")
    with visitor.question("go on"):
        visitor.click("Resume…")
        visitor.click("Resume")
    wait_until(lambda: count(receiver="marketing.tag_academy", state="done") == 1, what="what was held to run")


def retry(visitor: Visitor) -> None:
    """Retry the deliveries of the bug, and no others."""
    visitor.open("/admin/signalbus/delivery/failures/")
    with visitor.question("retry those of the bug"):
        visitor.click("Retry…", ROW_OF_THE_BUG)
        assert "Retry 120 deliveries?" in visitor.text
        visitor.type("#id_reason", "after fix 812")
        visitor.type("#id_rate", "40/s")
        visitor.screenshot("admin-retry")
        visitor.click("Retry")
    shown = visitor.reload_until("of 120 retried", "left")
    assert "after fix 812" in shown
    visitor.screenshot("admin-operation")
    visitor.reload_until("120 of 120 retried, 120 done, 0 failed again")
    assert count(receiver="marketing.tag_academy", state="done") == MESSAGES + 1


def prove(visitor: Visitor) -> None:
    """See that nothing of the bug is left, and that the other failures are as they were."""
    visitor.open("/admin/")
    with visitor.question("prove that none is left"):
        visitor.click("Deliveries")
        visitor.click("Failures by cause")
    shown = visitor.text
    assert "KeyError" not in shown
    assert "3 dead" in shown


def test_an_incident_is_steered_with_three_clicks_a_question(
    visitor: Visitor, start_incident_worker: Callable[[], Worker], faults: Path
):
    """Notice, group, stop, find Academy 42, rehearse, go on, retry only those of the bug, prove that none is left."""
    begin(start_incident_worker, faults)

    notice(visitor)
    stop(visitor)
    find(visitor)
    rehearse(visitor, faults)
    resume(visitor)
    retry(visitor)
    prove(visitor)

    assert {question: clicks for question, clicks in visitor.clicks.items() if clicks > MOST_CLICKS} == {}
    assert len(visitor.clicks) == 9
    assert visitor.errors() == []

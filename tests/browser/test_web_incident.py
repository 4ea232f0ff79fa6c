"""The incident of `test_incident`, played through the web app: each question is answered with at most three clicks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.apps import apps
from django.utils import timezone
from selenium.webdriver.common.keys import Keys

from signalbus.models import Pause
from tasks.marketing.models import FormEntry
from tests.servers import wait_until

from .test_incident import MESSAGES, MOST_CLICKS, OBEYED_AFTER, begin, count, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.browser.chromium import Visitor
    from tests.servers import Worker

BUG = "//li[contains(., \"KeyError: 'slug'\")]"
pytestmark = pytest.mark.skipif(apps.is_installed("unfold"), reason="the pages have a theme of their own")


def notice(visitor: Visitor) -> None:
    """See that deliveries are dead, and of which causes."""
    visitor.open("/signalbus/")
    with visitor.question("Is something wrong? Which failures are one failure?"):
        visitor.click("All failures")
        shown = visitor.text
        assert shown.index("120 marketing.tag_academy KeyError: 'slug'") < shown.index(
            "3 crm.sync ConnectionError: crm.example.com did not answer"
        )
    visitor.screenshot("web-failures")


def stop(visitor: Visitor) -> None:
    """Pause the receiver with the bug, from its group of failures."""
    with visitor.question("Stop it."):
        visitor.click("marketing.tag_academy", BUG)
        visitor.type("input[name=reason]", "a bug in 2.4")
        visitor.click("Pause the receiver")
        assert "marketing.tag_academy is paused by ana until" in visitor.text
        assert "“a bug in 2.4”" in visitor.text


def find(visitor: Visitor) -> None:
    """Find what became of Academy 42, by its name in the search box of each page."""
    with visitor.question("What happened to Academy 42?"):
        visitor.type("#find", "admissions.academy:42").send_keys(Keys.ENTER)
        visitor.find("//h1[contains(., 'admissions.Academy 42')]")
        visitor.click("marketing.tag_academy", "//main//section")
        assert "Dead after 1 attempt: KeyError: 'slug'" in visitor.text
    visitor.screenshot("web-delivery")


def rehearse(visitor: Visitor, faults: Path) -> None:
    """Rehearse the delivery before and after the fix."""
    with visitor.question("Does it still fail?"):
        visitor.click("Rehearse: run it and roll back")
        assert "It would fail: KeyError: 'slug'" in visitor.text
    (faults / "bug").unlink()
    with visitor.question("Does the fix work?"):
        visitor.click("marketing.tag_academy", "//main//h1/..")
        visitor.click("Rehearse: run it and roll back")
        assert "It would succeed." in visitor.text
    assert not FormEntry.objects.exists()


def resume(visitor: Visitor) -> None:
    """End the pause, from the band that stands on each page."""
    since = Pause.objects.get().since
    wait_until(lambda: timezone.now() - since > OBEYED_AFTER, what="the pause to be obeyed")
    send(range(MESSAGES + 1, MESSAGES + 2))
    wait_until(lambda: count(state="held") == 1, what="the delivery to be held")
    with visitor.question("Go on."):
        visitor.click("Resume…")
        visitor.click("Resume")
    wait_until(lambda: count(receiver="marketing.tag_academy", state="done") == 1, what="what was held to run")


def retry(visitor: Visitor) -> None:
    """Retry the deliveries of the bug, and no others; the page of the operation renews itself."""
    visitor.open("/signalbus/failures/")
    with visitor.question("Retry those of the bug, and no others."):
        visitor.click("Retry…", BUG)
        visitor.type("#reason", "after fix 812")
        visitor.type("#rate", "60/s")
        visitor.screenshot("web-retry")
        visitor.click("Retry 120 deliveries")
        visitor.find("//h2[contains(., 'of 120')]")
    visitor.screenshot("web-operation")
    visitor.find("//h2[contains(., '120 of 120')]")
    wait_until(lambda: count(receiver="marketing.tag_academy", state="done") == MESSAGES + 1, what="all to be done")


def prove(visitor: Visitor) -> None:
    """See that nothing of the bug is left, and that the other failures are as they were."""
    visitor.open("/signalbus/")
    with visitor.question("Is nothing of it left?"):
        visitor.click("All failures")
        assert "KeyError" not in visitor.text
        assert "3 crm.sync ConnectionError" in visitor.text


def test_an_incident_is_steered_through_the_web_app_with_three_clicks_a_question(
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
    assert len(visitor.clicks) == 8
    assert visitor.errors() == []
    rows = [
        f"| {question} | {clicks} | {visitor.seconds[question]:.1f} |" for question, clicks in visitor.clicks.items()
    ]
    print("", *rows, sep="\n")  # noqa: T201 - for docs/web.md: pytest -s, after the line that pytest has begun

"""Every page of the admin in a browser: on a wide screen and a phone, in light and dark, in the theme of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.utils import timezone
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from signalbus.models import Operation
from signalbus.services.actors import code_actor
from signalbus.services.changes.pausing import pause
from tasks.admissions.models import Academy
from tests.integration.admin_site import DELIVERIES, MESSAGES, OPERATIONS, add_delivery, add_message

if TYPE_CHECKING:
    from tests.browser.chromium import Visitor

# Django's own parts of a page are not ours to change: its search box has no label, for example.
OURS = ".signalbus-pause, .signalbus-page, .signalbus-list, .signalbus-scroll, .signalbus-text"
LONG = "a_very_long_name_of_a_receiver_" * 8


@pytest.fixture
def pages(database_url: str) -> dict[str, str]:
    """The addresses of all pages by name, with rows, long names and a pause on each."""
    academy = Academy.objects.create(name="Academy 42", slug="a")
    sent = add_message(
        "shop.academy_opened", {"number": 42, "note": "x" * 300}, subject=f"admissions.Academy {academy.pk}"
    )
    child = add_message("crm.contact_changed", parent=sent)
    failure = {"error": f"KeyError: '{LONG}'", "traceback": f"Traceback\n  {LONG}\n", "failed_at": timezone.now()}
    delivery = add_delivery("crm.sync", "dead", sent, error_group="aa", **failure)
    add_delivery(f"shop.{LONG}", "dead", child, error_group="bb", **failure)
    add_delivery("search.index", "done", sent)
    pause("receiver", "crm.sync", actor=code_actor("ana"), reason="the provider is down", unknown=True)
    return {
        "deliveries": DELIVERIES,
        "delivery": f"{DELIVERIES}{delivery.pk}/change/",
        "messages": MESSAGES,
        "message": f"{MESSAGES}{sent.id}/change/",
        "failures": f"{DELIVERIES}failures/",
        "receivers": f"{DELIVERIES}receivers/",
        "pause": f"{DELIVERIES}pause/?kind=receiver&name=crm.sync",
        "resume": f"{DELIVERIES}resume/?kind=receiver&name=crm.sync",
        "operations": OPERATIONS,
        "operation": f"{OPERATIONS}{Operation.objects.get().pk}/change/",
        "signals of a row": f"/admin/admissions/academy/{academy.pk}/signals/",
    }


@pytest.mark.parametrize(("widths", "scheme"), [((1280,), "light"), ((390, 320), "dark")])
def test_every_page_fits_its_screen(visitor: Visitor, pages: dict[str, str], widths: tuple[int, ...], scheme: str):
    """No page is wider than the window, with any font, and no script or request of it fails; each shows the pause."""
    visitor.prefer(scheme)
    too_wide = {}
    for name, path in pages.items():
        visitor.resize(widths[0])
        visitor.open(path)
        assert "receiver crm.sync is paused" in visitor.text, name
        visitor.look(name, widths[0], scheme)
        too_wide[name] = visitor.overflows(*widths)

    assert {name: found for name, found in too_wide.items() if found} == {}
    assert visitor.errors() == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_page_has_a_finding_of_axe_core(visitor: Visitor, pages: dict[str, str], width: int, scheme: str):
    """What the pages show, not what the admin's theme shows around it, can be used by everybody."""
    visitor.prefer(scheme)
    visitor.resize(width)
    findings = {}
    for name, path in pages.items():
        visitor.open(path)
        findings[name] = visitor.findings(OURS)

    assert {name: found for name, found in findings.items() if found} == {}


def test_a_list_is_changed_by_its_actions(visitor: Visitor, pages: dict[str, str]):
    """Ticked deliveries are previewed and retried by the list's own menu of actions, in any theme."""
    visitor.open(f"{pages['deliveries']}?state=dead")
    with visitor.question("retry what is ticked"):
        for box in visitor.driver.find_elements(By.NAME, "_selected_action"):
            box.click()
        Select(visitor.find("//select[@name='action']")).select_by_value("retry_deliveries")
        visitor.click_on(visitor.find("//button[@name='index']"))
    assert "Retry 2 deliveries?" in visitor.text
    visitor.click("Retry")

    assert "2 deliveries are due again." in visitor.text

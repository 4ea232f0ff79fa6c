"""The web app in a browser: every page fits, renews itself, and works with a keyboard alone and without a script."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.utils import timezone
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from signalbus.ledger.sweeps.purging import PURGE_LEASE
from signalbus.models import Alert, Delivery, FailedAttempt, Key, Operation, Rollup, WorkerRecord
from signalbus.services.actors import code_actor
from signalbus.services.changes.bulk_operations import start_operation
from signalbus.services.changes.pausing import pause
from signalbus.services.queries.lookup import filter_from
from tests.integration.admin_site import add_delivery, add_message
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser.chromium import Visitor

LONG = "a_very_long_name_of_a_receiver_" * 8
pytestmark = pytest.mark.skipif(apps.is_installed("unfold"), reason="the pages have a theme of their own")


@pytest.fixture
def delivery(database_url: str) -> Delivery:
    """A dead delivery with long names, failed attempts, a payload and a cascade; an alert, a pause, and counts."""
    now = timezone.now()
    sent = add_message("shop.academy_opened", {"note": "x" * 300, "token": "s"}, subject="admissions.Academy 42")
    child = add_message("crm.contact_changed", parent=sent)
    failure = {"error": f"KeyError: '{LONG}'", "traceback": f"Traceback\n  {LONG}\n", "failed_at": now}
    dead = add_delivery("crm.sync", "dead", sent, error_group="aa", attempts=2, **failure)
    FailedAttempt.objects.create(
        delivery=dead, number=1, ended_at=now, error=dead.error, error_group="aa", traceback=f"File\n {LONG}",
        worker="worker-1:42", release="c3d4e5f",
    )  # fmt: skip
    add_delivery(f"shop.{LONG}", "dead", child, error_group="bb", **failure)
    add_delivery("search.index", "pending", sent, due_at=now)
    Rollup.objects.create(
        bucket_at=now, seconds=60, signal="shop.academy_opened", receiver="crm.sync", done=1234, dead=2,
        runtimes=[3] * 31, delays=[1] * 31, release="c3d4e5f",
    )  # fmt: skip
    for minute in (9, 12, 14, 58):
        Rollup.objects.create(
            bucket_at=now - timedelta(minutes=minute), seconds=60, signal="shop.academy_opened", receiver="crm.sync",
            done=10**9, dead=10**6, release=f"{minute}{'f' * 38}", queue=LONG,
        )  # fmt: skip
    Alert.objects.create(kind="dead", key="aa", text=f"2 deliveries are dead: {LONG}", raised_at=now)
    pause("receiver", "crm.sync", actor=code_actor("ana"), reason="the provider is down", unknown=True)
    start_operation("retry", filter_from(["group:bb"]), actor=code_actor("ana"), reason="fixed")
    return dead


def every_page(delivery: Delivery) -> Iterator[tuple[str, str]]:
    """Yield the pages by name."""
    names = (
        "", "deliveries", "failures", "signals", "graph", "queues", "workers", "activity", "doctor", "operations",
        f"deliveries/{delivery.pk}", f"operations/{Operation.objects.latest('pk').pk}",
    )  # fmt: skip
    yield from ((name.replace("/", "-") or "overview", f"/signalbus/{name}{'/' if name else ''}") for name in names)
    yield "receiver", "/signalbus/receiver/?id=crm.sync"
    yield "history", "/signalbus/history/?subject=admissions.academy:42"
    yield "preview", "/signalbus/change/?verb=retry&q=state:dead"


@pytest.mark.parametrize(("widths", "scheme"), [((1280,), "light"), ((390, 320), "dark")])
def test_every_page_of_the_web_app_fits_its_screen(
    visitor: Visitor, delivery: Delivery, widths: tuple[int, ...], scheme: str
):
    """No page is wider than the window, with any font; none breaks its policy of content or asks another host."""
    visitor.prefer(scheme)
    too_wide = {}
    for name, path in every_page(delivery):
        visitor.resize(widths[0])
        visitor.open(path)
        assert "crm.sync is paused" in visitor.text, name
        hosts = visitor.driver.execute_script(
            "return performance.getEntriesByType('resource').map(each => new URL(each.name).origin)"
        )
        assert set(hosts) <= {visitor.url}, name
        visitor.look(f"web-{name}", widths[0], scheme)
        too_wide[name] = visitor.overflows(*widths)

    assert {name: found for name, found in too_wide.items() if found} == {}
    assert visitor.errors() == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_page_of_the_web_app_has_a_finding_of_axe_core(
    visitor: Visitor, delivery: Delivery, width: int, scheme: str
):
    """People with a screen reader or with weak eyes can use each page: no critical, serious or moderate finding."""
    visitor.prefer(scheme)
    visitor.resize(width)
    findings = {}
    for name, path in every_page(delivery):
        visitor.open(path)
        findings[name] = visitor.findings("html")

    assert {name: found for name, found in findings.items() if found} == {}


def test_a_page_renews_what_nobody_uses(visitor: Visitor, delivery: Delivery):
    """What changed is shown and announced; an open traceback stays open, and a ticked box stays ticked."""
    visitor.open("/signalbus/deliveries/")
    visitor.driver.find_element(By.CSS_SELECTOR, "tbody input[type=checkbox]").click()
    Alert.objects.create(kind="overdue", key="", text="14 wait", raised_at=timezone.now())
    newest = add_delivery("late.receiver")

    def is_announced() -> bool:
        return bool(visitor.driver.find_element(By.ID, "announcement").get_attribute("textContent"))

    wait_until(is_announced, 30, "the page to renew itself")
    assert len(visitor.driver.find_elements(By.CSS_SELECTOR, "tbody input:checked")) == 1
    assert str(newest.pk) not in visitor.driver.page_source  # its part is in use
    assert visitor.driver.title.startswith("(2)")

    visitor.driver.find_element(By.CSS_SELECTOR, "tbody input:checked").click()
    visitor.driver.execute_script("document.activeElement.blur()")
    wait_until(lambda: str(newest.pk) in visitor.driver.page_source, 30, "the list to be renewed")
    assert visitor.errors() == []


def test_a_delivery_is_found_and_retried_with_the_keyboard_alone(visitor: Visitor, delivery: Delivery):
    """The key / leads to the search box; the tab key leads to every control, in the order of the page."""
    visitor.open("/signalbus/")
    body = visitor.driver.find_element(By.TAG_NAME, "body")
    body.send_keys("/")
    visitor.driver.switch_to.active_element.send_keys(str(delivery.pk), Keys.ENTER)
    visitor.find("//h1[contains(., 'crm.')]")
    for _ in range(40):
        visitor.driver.switch_to.active_element.send_keys(Keys.TAB)
        if visitor.driver.switch_to.active_element.text == "Retry…":
            break
    visitor.driver.switch_to.active_element.send_keys(Keys.ENTER)
    visitor.find("//h1[contains(., 'Retry 1 delivery')]")
    visitor.find("//textarea[@name='reason']").send_keys("by keyboard", Keys.TAB, Keys.ENTER)

    wait_until(lambda: Delivery.objects.get(pk=delivery.pk).state == "pending", 15, "the delivery to be due")
    assert Operation.objects.latest("pk").reason == "by keyboard"


def test_the_web_app_works_without_a_script(visitor: Visitor, delivery: Delivery):
    """Filters, links, details, the theme and the forms need none."""
    visitor.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visitor.open("/signalbus/deliveries/")
        visitor.type("#filter", "receiver:crm.sync").send_keys(Keys.ENTER)
        visitor.find("//h2[contains(., '1 delivery')]")
        visitor.driver.find_element(By.XPATH, "//button[@value='dark']").click()
        visitor.find("//html[@data-theme='dark']")
        visitor.driver.find_element(By.CSS_SELECTOR, "tbody input[type=checkbox]").click()
        visitor.driver.find_element(By.XPATH, "//button[@value='discard']").click()
        visitor.find("//h1[contains(., 'Discard 1 delivery')]")
        visitor.driver.find_element(By.XPATH, "//main//button[contains(., 'Discard')]").click()
        wait_until(lambda: Delivery.objects.get(pk=delivery.pk).state == "discarded", 15, "the discard")
    finally:
        visitor.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        visitor.driver.delete_cookie("signalbus_theme")


def test_the_overview_answers_first_what_is_wrong(visitor: Visitor, database_url: str):
    """Alerts and figures stand above charts and lists; the picture is in docs/web.md."""
    now = timezone.now().replace(second=0, microsecond=0)
    for minute in range(60):
        is_bad = minute < 24
        counts: dict[str, Any] = {
            "bucket_at": now - timedelta(minutes=minute),
            "seconds": 60,
            "signal": "shop.order_paid",
        }
        release = "c3d4e5f" if is_bad else "b7f0a12"
        Rollup.objects.create(receiver="billing.book", done=900 + 37 * minute % 110, **counts)
        Rollup.objects.create(
            receiver="crm.sync",
            done=0 if is_bad else 60,
            dead=50 if is_bad else minute % 7 == 0,
            release=release,
            **counts,
        )
    for number in range(12):
        sent = add_message("shop.order_paid", subject=f"shop.Order {number}")
        add_delivery(
            "crm.sync", "dead", sent, error="KeyError: 'slug'", error_group="aa",
            failed_at=timezone.now() - timedelta(minutes=number), attempts=3,
        )  # fmt: skip
        add_delivery("billing.book", "done", sent)
    Alert.objects.create(
        kind="dead", key="aa", text="12 deliveries to crm.sync are dead: KeyError: 'slug'",
        raised_at=now - timedelta(minutes=23),
    )  # fmt: skip
    described = {"pool": "prefork", "concurrency": 8, "queues": ["signalbus", "email"], "version": "1", "receivers": {}}
    times = {"started_at": now, "seen_at": timezone.now() + timedelta(hours=1)}
    for number in (1, 2):
        WorkerRecord.objects.create(
            name=f"web-{number}:7", host=f"web-{number}", pid=7, registry_digest="a", release="c3d4e5f",
            **described, **times,
        )  # fmt: skip
    Key.objects.create(id=PURGE_LEASE, used_at=timezone.now())
    visitor.resize(1280, 1000)
    visitor.open("/signalbus/")
    shown = visitor.text

    places = [shown.index(text) for text in ("12 deliveries to crm.sync", "Done per min", "Last 1 h", "Failures, most")]
    assert places == sorted(places)
    visitor.screenshot("web-overview")

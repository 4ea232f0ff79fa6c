"""The graph of signals in a browser: it scrolls within its panel on a phone; its picture is in the documents."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.apps import apps
from django.utils import timezone
from selenium.webdriver.common.by import By

from signalbus import Signal
from signalbus.models import Rollup, WorkerRecord
from tests.integration.admin_site import add_delivery, add_message

if TYPE_CHECKING:
    from tests.browser.chromium import Visitor

RATES = {
    "shop.order_paid": {
        "billing.receivers.book_invoice": 420,
        "crm.receivers.sync_order": 420,
        "stock.receivers.reserve": 418,
    },
    "shop.order_shipped": {"mail.receivers.send_tracking": 96, "crm.receivers.sync_order": 95},
    "billing.order_invoiced": {"mail.receivers.send_invoice": 411, "search.receivers.index_invoice": 0},
    "shop.order_archived": {},
}
QUEUES = {"mail": "email", "search": "search"}
pytestmark = pytest.mark.skipif(apps.is_installed("unfold"), reason="the pages have a theme of their own")


@pytest.fixture
def signals(database_url: str) -> list[Signal]:
    """Four signals with five receivers, of which one sends a signal; a queue has no worker."""
    now, made = timezone.now(), []
    for name, receivers in RATES.items():
        signal = Signal(name)
        made.append(signal)
        for receiver, done in receivers.items():
            queue = QUEUES.get(receiver.partition(".")[0])
            signal.connect(lambda **kwargs: None, weak=False, dispatch_uid=receiver, queue=queue)
            if done:
                Rollup.objects.create(bucket_at=now, seconds=60, signal=name, receiver=receiver, done=done)
    WorkerRecord.objects.create(
        name="w:1", host="w", pid=1, pool="prefork", concurrency=8, queues=["signalbus", "email"], version="1",
        registry_digest="a", receivers={}, started_at=now, seen_at=now + timedelta(hours=1),
    )  # fmt: skip
    paid = add_message("shop.order_paid")
    add_delivery("billing.receivers.book_invoice", "done", paid, started_at=now - timedelta(seconds=1))
    add_message("billing.order_invoiced", parent=paid)
    return made


@pytest.mark.usefixtures("signals")
def test_the_graph_shows_rates_and_dead_ends_on_any_screen(visitor: Visitor):
    """On a phone the drawing scrolls within its panel, and the page does not."""
    for width in (390, 1280):
        visitor.resize(width, 700)
        visitor.open("/signalbus/graph/?q=order")
        assert visitor.overflow() <= 0
        panel = visitor.driver.find_element(By.CSS_SELECTOR, "#graph .scroll")
        scrolls = visitor.driver.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", panel)
        assert scrolls or width > 390
    shown = visitor.text
    assert "4 signals 3 dead ends" in shown
    assert "▲ nobody listens" in shown
    assert "70/min" in shown

    visitor.screenshot("web-graph")
    visitor.find("//*[name()='a'][contains(@href, 'book_invoice')]").click()
    visitor.find("//h1[contains(., 'book_invoice')]")
    assert visitor.errors() == []

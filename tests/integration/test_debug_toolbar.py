"""The panel of django-debug-toolbar shows what a request has sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

from signalbus import tracing
from signalbus.events import unlisten

from .bus import Bus, connect, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.parametrize("database", ["sqlite"])
PANEL = "signalbus.telemetry.debug_toolbar_panel.SignalbusPanel"


@pytest.fixture
def installed() -> Iterator[None]:
    """Install the toolbar: it can be imported only then."""
    with override_settings(
        INSTALLED_APPS=[*settings.INSTALLED_APPS, "debug_toolbar"],
        DEBUG_TOOLBAR_PANELS=[PANEL],
        ROOT_URLCONF="debug_toolbar.urls",
    ):
        yield


@pytest.fixture
def look_at(installed: None) -> Iterator[Callable[[Callable[[], object]], Any]]:
    """Return a function that does something in a request, and returns the toolbar's panel."""
    from debug_toolbar.toolbar import DebugToolbar

    from signalbus.telemetry import debug_toolbar_panel

    def look_at(act: Callable[[], object]) -> Any:
        def view(request: HttpRequest) -> HttpResponse:
            act()
            return HttpResponse("<html><body></body></html>")

        request = RequestFactory().get("/")
        toolbar = DebugToolbar(request, view)
        (panel,) = toolbar.panels
        panel.enable_instrumentation()
        response = toolbar.process_request(request)
        panel.generate_stats(request, response)
        panel.disable_instrumentation()
        return panel

    DebugToolbar._panel_classes = None
    yield look_at
    DebugToolbar._panel_classes = None
    for tracer in tracing.tracers:
        if isinstance(tracer, debug_toolbar_panel.RequestRecorder):
            tracing.remove_tracer(tracer)
            unlisten(tracer.note_commit)
    debug_toolbar_panel._switch_on.cache_clear()


def test_the_panel_shows_what_a_request_sent(bus: Bus, look_at: Callable[[Callable[[], object]], Any]):
    """The signal, its receivers, the size, and whether the transaction was committed."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    connect(signal, lambda **kwargs: None, "<mailer>", queue="email")
    ids: list[str] = []

    def act() -> None:
        ids.append(str(signal.send(None, text="x" * 1000).id))
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            ids.append(str(signal.send(None).id))
            raise ZeroDivisionError

    panel = look_at(act)

    sent, rolled_back = panel.get_stats()["messages"]
    assert sent["receivers"] == rolled_back["receivers"] == ["crm.sync", "<mailer>"]
    assert [sent["id"], rolled_back["id"]] == ids
    assert sent["bytes"] > 1000
    assert (sent["is_committed"], rolled_back["is_committed"]) == (True, False)
    assert panel.nav_subtitle == "2 messages"
    assert "crm.sync, &lt;mailer&gt;" in panel.content
    assert sent["id"] in panel.content


def test_requests_do_not_see_each_others_messages(bus: Bus, look_at: Callable[[Callable[[], object]], Any]):
    """Nor what is sent outside of a request."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "crm.sync")
    look_at(lambda: signal.send(None))
    signal.send(None)
    panel = look_at(lambda: None)

    assert panel.get_stats()["messages"] == []
    assert "no signals" in panel.content

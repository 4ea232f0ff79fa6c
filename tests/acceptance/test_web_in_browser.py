"""The web app in a real Chromium: its module renews pages, its keys work, and its policy of content is kept."""

from __future__ import annotations

import shutil
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from django.contrib.staticfiles import finders
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.urls import reverse
from django.utils import timezone

from signalbus.models import Alert, Pause
from tests.integration.admin_site import OPERATOR, READER, add_delivery, visitor
from tests.other_servers import DATABASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.usefixtures("database_url"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(DATABASE is not None, reason="the pages do not depend on the database"),
]


@pytest.fixture
def database() -> str:
    """One database: the pages do not depend on it."""
    return "sqlite"


class Quiet(WSGIRequestHandler):
    """Write no line for each request."""

    def log_message(self, *_arguments: Any) -> None:
        """Write nothing."""


@contextmanager
def served(session: str, after_first: Callable[[], None]) -> Iterator[str]:
    """Serve the project to a browser that is logged in; call a function once the first page has been sent."""
    django, pages = WSGIHandler(), []

    def application(environ: dict[str, Any], start: Any) -> Any:
        path = str(environ["PATH_INFO"])
        if path.startswith("/static/"):
            found = finders.find(path.removeprefix("/static/"))
            kind = "text/css" if path.endswith(".css") else "text/javascript"
            start("200 OK" if found else "404 Not Found", [("Content-Type", kind)])
            if not found:
                return []
            with open(str(found), "rb") as file:  # noqa: PTH123 - a path of a finder
                return [file.read()]
        environ["HTTP_COOKIE"] = f"sessionid={session}"
        body = b"".join(django(environ, start))
        if path.startswith("/signalbus/"):
            pages.append(path)
            if len(pages) == 1:
                after_first()
        connections.close_all()
        return [body]

    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def opened(url: str, profile: Path, *options: str) -> tuple[str, str]:
    """Open a page, let twelve seconds of its own time pass, and return its elements and the browser's log."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
        "--enable-logging=stderr", "--virtual-time-budget=12000", "--dump-dom", *options, url,
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line and "favicon" not in line]
    return ended.stdout, "\n".join(console)


@pytest.fixture
def session(database_url: str, settings: Any) -> str:
    """The session of an operator; any host may ask."""
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    return visitor(*READER, *OPERATOR).cookies["sessionid"].value


def test_a_page_renews_itself_without_a_violation_of_its_policy(session: str, tmp_path: Path):
    """An alert and a pause that come later are shown and announced; nothing is refused by the policy of content."""

    def change() -> None:
        Alert.objects.create(kind="overdue", key="", text="14 deliveries wait", raised_at=timezone.now())
        Pause.objects.create(kind="queue", name="email", by="ana", reason="CRM is down", since=timezone.now())

    with served(session, change) as server:
        shown, console = opened(server + reverse("signalbus_web:overview"), tmp_path)

    assert console == ""
    assert "14 deliveries wait" in shown
    assert "CRM is down" in shown
    assert "A new alert was raised." in shown
    assert "<title>(1) Overview" in shown
    assert "Stop renewing (5 s)" in shown


@pytest.mark.parametrize("name", ["deliveries", "failures", "queues"])
def test_no_page_breaks_its_policy(session: str, tmp_path: Path, name: str):
    """Chromium reports nothing, at the width of a phone."""
    add_delivery(error="KeyError: 'x'", error_group="x", failed_at=timezone.now())
    with served(session, lambda: None) as server:
        shown, console = opened(
            server + reverse(f"signalbus_web:{name}"), tmp_path, "--window-size=390,900", "--virtual-time-budget=500"
        )
    assert console == ""
    assert "<h1>" in shown

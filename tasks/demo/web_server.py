"""Serve the web app in the demo's process, on the loopback address alone, to a visitor who may do everything."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.request import urlopen

from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest, HttpResponse

VISITOR = "demo"  # the name of the user
SECONDS = 30  # for an answer


class QuietHandler(WSGIRequestHandler):
    """Answers requests without a line for each."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
        """Say nothing."""


def visitor_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Let every request be the visitor's, without a login. Only for a demo: its data are invented."""

    def answer(request: HttpRequest) -> HttpResponse:
        request.user = get_user_model()._default_manager.get(username=VISITOR)  # noqa: SLF001 - Django documents it
        return get_response(request)

    return answer


@contextmanager
def web_app() -> Iterator[str]:
    """Serve the web app on a free port of 127.0.0.1 while the block runs; return the address of its first page."""
    get_user_model()._default_manager.create_superuser(VISITOR)  # noqa: SLF001 - as above
    server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
    server.daemon_threads = True
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    thread = threading.Thread(target=server.serve_forever, name="demo-web-app", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/signalbus/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def page(address: str) -> str:
    """Return a page's text; an answer that is an error is raised."""
    with urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - the address of our own server
        text: str = answer.read().decode()
        return text

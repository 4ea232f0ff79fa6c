"""Let a page be seen only by who may: login, permission, method, and the headers that each page has.

Every view of the web app is made by `page`. Its services check the permission of what they change once more.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import wraps
from hashlib import blake2b
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connections, transaction
from django.http import HttpResponse, HttpResponseNotAllowed
from django.templatetags.static import static
from django.utils.cache import get_conditional_response
from django.views.decorators.csrf import csrf_protect

from signalbus.ledger import operations as ledger
from signalbus.services.actors import VIEW, user_actor
from signalbus.web.page_layout import render_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest

STATEMENT_MS: Final = 3000  # that one statement of a page may take, on PostgreSQL
CANCELLED: Final = "57014"  # PostgreSQL's code of a statement that took too long
STYLESHEET: Final = "signalbus_web/style.css"
OF_THE_ANSWER: Final = re.compile(rb'name="csrfmiddlewaretoken" value="[^"]*"|<span id="updated">.*?</span>', re.DOTALL)


def page(
    *, permission: str = VIEW, methods: tuple[str, ...] = ("GET", "HEAD"), is_bounded: bool = True
) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """Return a decorator that makes a view of the web app.

    The view gets the request and the actor. Anonymous users are sent to the login; a user without the permission gets
    an answer 403.

    Args:
        permission: what a user needs to see it.
        methods: the methods that it answers; only a POST may change anything.
        is_bounded: end its statements after three seconds, on PostgreSQL. Not for views that change something.
    """

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @csrf_protect
        @wraps(view)
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            actor = user_actor(request.user, "web")
            actor.require(VIEW)
            actor.require(permission)
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            _reject_foreign(request)
            if not is_bounded or request.method == "POST":
                return with_headers(view(request, actor, *args, **kwargs))
            try:
                with _bounded_statements():
                    response = view(request, actor, *args, **kwargs)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", None) != CANCELLED:
                    raise
                response = render_page(request, actor, "too_slow.html", "", status=503)
            return with_headers(_unless_known(request, response))

        return answer

    return decorate


def with_headers(response: HttpResponse) -> HttpResponse:
    """Add the headers that each page has, unless the view has set them."""
    for name, value in (
        ("Content-Security-Policy", _policy()),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "same-origin"),
        ("Cache-Control", "private, no-store"),
    ):
        response.headers.setdefault(name, value)
    return response


def _unless_known(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Answer 304, without a body, if the page shows nothing that its reader does not have; else give it an ETag.

    The token of a form and the time of the answer differ in each answer: they do not count.
    """
    if response.status_code != HTTPStatus.OK or not response.headers.get("Content-Type", "").startswith("text/html"):
        return response
    digest = blake2b(OF_THE_ANSWER.sub(b"", response.content), digest_size=16).hexdigest()
    response.headers["ETag"] = f'"{digest}"'
    known = get_conditional_response(request, etag=response.headers["ETag"], response=response)
    return known if isinstance(known, HttpResponse) else response


def _policy() -> str:
    """Return the content security policy: files of ours only, also where static files have a host of their own."""
    parts = urlsplit(static(STYLESHEET))
    files = f"'self' {parts.scheme or 'https'}://{parts.netloc}" if parts.netloc else "'self'"
    return (
        f"default-src 'none'; script-src {files}; style-src {files}; img-src {files}; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _reject_foreign(request: HttpRequest) -> None:
    """Refuse a form that another site has sent; the token of the form is checked beside it."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}:
        raise PermissionDenied("The form was sent by another site.")


@contextmanager
def _bounded_statements() -> Iterator[None]:
    """End statements that take too long, and read all of a page from one connection's transaction."""
    alias = ledger.using()
    connection = connections[alias]
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(using=alias):
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
        yield

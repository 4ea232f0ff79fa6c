"""Keep the theme that a user chooses in a cookie: the page works without a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from django.http import HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme

from signalbus.web.page_access import page
from signalbus.web.page_layout import THEME_COOKIE, THEMES, url_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor

YEAR: Final = 365 * 86400  # seconds
MOST_CHARS: Final = 2000  # of an address


@page(methods=("POST",))
def choose_theme(request: HttpRequest, actor: Actor) -> HttpResponse:  # noqa: ARG001 - a view's signature
    """Set the cookie, and go back to where the form was."""
    theme, back = request.POST.get("theme", ""), request.POST.get("next", "")[:MOST_CHARS]
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure()):
        back = url_of(request, "overview")
    response = HttpResponseRedirect(back)
    if theme in THEMES:
        response.set_cookie(
            THEME_COOKIE, theme, max_age=YEAR, secure=request.is_secure(), httponly=True, samesite="Lax"
        )
    return response

"""The admin's forms that pause a receiver, a signal, a queue or what a filter matches, and resume it.

A form that is asked for by GET changes nothing; the services check the permission again, and write the audit log.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import HttpResponseRedirect
from django.urls import path

from signalbus.admin import html_values as html
from signalbus.admin.read_only import REASON_CHARS, ReadOnlyAdmin
from signalbus.core.printable_text import printable
from signalbus.exceptions import ConfigurationError
from signalbus.services.actors import OPERATE, user_actor
from signalbus.services.changes.pausing import MOST_CHARACTERS, PAUSE_KINDS, pause, resume

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    from signalbus.services.changes.pausing import PauseKind

# How long a pause lasts: the value of the form, and hours.
ENDS: Final[dict[str, tuple[str, int | None]]] = {
    "": ("until somebody resumes it", None),
    "1h": ("1 hour", 1),
    "8h": ("8 hours", 8),
    "1d": ("1 day", 24),
}
RATE_CHARS: Final = 20


class PausesAdmin(ReadOnlyAdmin):
    """The forms of pauses."""

    def get_urls(self) -> list[URLPattern]:
        """Add the addresses of the forms."""
        view = self.admin_site.admin_view
        return [
            path("pause/", view(self.pause_form), name="signalbus_pause"),
            path("resume/", view(self.resume_form), name="signalbus_resume"),
            *super().get_urls(),
        ]

    def pause_form(self, request: HttpRequest) -> HttpResponse:
        """Ask for a reason and an end; pause by POST.

        Raises:
            PermissionDenied: the user must not.
            BadRequest: nothing of this kind can be paused.
        """
        actor = user_actor(request.user, "admin")
        actor.require(OPERATE)
        kind, name = _target(request)
        if request.method == "POST":
            _, hours = ENDS.get(request.POST.get("until", ""), ENDS[""])
            until = None if hours is None else timedelta(hours=hours)
            try:
                pause(kind, name, actor=actor, reason=_reason(request), until=until)
            except ConfigurationError as error:
                self.message_user(request, printable(str(error), html.ERROR_CHARS), messages.ERROR)
            else:
                told = f"The {kind} {name} is paused: the workers obey within 5 seconds."
                return self._done(request, printable(told, html.ERROR_CHARS))
        return self._form(request, "pause", kind, name, ends=[(value, text) for value, (text, _) in ENDS.items()])

    def resume_form(self, request: HttpRequest) -> HttpResponse:
        """Ask for a rate; resume by POST.

        Raises:
            PermissionDenied: the user must not.
            BadRequest: nothing of this kind can be paused.
        """
        actor = user_actor(request.user, "admin")
        actor.require(OPERATE)
        kind, name = _target(request)
        if request.method == "POST":
            try:
                held = resume(kind, name, actor=actor, reason=_reason(request), rate=_rate(request))
            except ConfigurationError as error:
                self.message_user(request, printable(str(error), html.ERROR_CHARS), messages.ERROR)
            else:
                released = "1 held delivery is" if held == 1 else f"{held:,} held deliveries are"
                told = f"The {kind} {name} is resumed: {released} released."
                return self._done(request, printable(told, html.ERROR_CHARS))
        return self._form(request, "resume", kind, name)

    def _form(self, request: HttpRequest, verb: str, kind: PauseKind, name: str, **context: Any) -> HttpResponse:
        title = f"{verb.capitalize()} the {kind} {html.short(name)}?" if name else f"{verb.capitalize()} a {kind}"
        context |= {"verb": verb, "kind": kind, "name": printable(name, MOST_CHARACTERS)}
        context |= {"reason_chars": REASON_CHARS, "name_chars": MOST_CHARACTERS}
        return self.own_page(request, "pause.html", title, **context)

    def _done(self, request: HttpRequest, told: str) -> HttpResponse:
        self.message_user(request, told, messages.SUCCESS)
        return HttpResponseRedirect(self.page_url("receivers"))


def _target(request: HttpRequest) -> tuple[PauseKind, str]:
    given = request.POST if request.method == "POST" else request.GET
    kind, name = given.get("kind", ""), given.get("name", "")[:MOST_CHARACTERS]
    if kind not in PAUSE_KINDS:
        raise BadRequest("nothing of this kind can be paused")
    return kind, name


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "")[:REASON_CHARS].strip()


def _rate(request: HttpRequest) -> float | None:
    """Read deliveries a second; none given is no limit.

    Raises:
        ConfigurationError: it is no number.
    """
    text = request.POST.get("rate", "")[:RATE_CHARS].strip()
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not math.isfinite(rate):
        raise ConfigurationError("The rate must be a number of deliveries a second, as 20.")
    return rate

"""The admin's page that rehearses a delivery: its receiver runs in a transaction that is rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse

from signalbus.admin import html_values as html
from signalbus.admin.read_only import ReadOnlyAdmin
from signalbus.core.printable_text import printable
from signalbus.exceptions import ConfigurationError
from signalbus.services.actors import OPERATE, VIEW_PAYLOAD, user_actor
from signalbus.services.changes.rehearsal import LASTING, PATIENCE, rehearse_beside_others
from signalbus.services.queries.lookup import message_of

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    from signalbus.services.changes.rehearsal_captures import Rehearsal

LINES = 200  # of each kind that a rehearsal reports
LINE_CHARS = 2000


class RehearsalAdmin(ReadOnlyAdmin):
    """The result of a rehearsal."""

    def get_urls(self) -> list[URLPattern]:
        """Add the address of the page."""
        view = self.admin_site.admin_view(self.rehearse)
        return [path("<uuid:pk>/rehearse/", view, name="signalbus_rehearse"), *super().get_urls()]

    @transaction.non_atomic_requests  # the rehearsal has connections of its own
    def rehearse(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Rehearse a delivery by POST, and show what its receiver would do.

        Raises:
            PermissionDenied: the user must not.
            Http404: there is no such delivery.
        """
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        actor = user_actor(request.user, "admin")
        actor.require(OPERATE)
        actor.require(VIEW_PAYLOAD)
        found = message_of(pk)
        delivery = None if found is None else next((row for row in found.deliveries if row.pk == pk), None)
        if found is None or delivery is None:
            raise Http404("no such delivery")
        try:
            result = rehearse_beside_others(found, delivery, actor=actor)
        except ConfigurationError as error:
            self.message_user(request, printable(f"Not rehearsed: {error}", html.ERROR_CHARS), messages.ERROR)
            page = reverse("admin:signalbus_delivery_change", args=(pk,), current_app=self.admin_site.name)
            return HttpResponseRedirect(page)
        context = {
            "delivery": delivery, "what": f"{html.signal_of(delivery.message.signal)} → {html.receiver_of(delivery)}",
            "patience": int(PATIENCE), "lasting": LASTING,
        }  # fmt: skip
        return self.own_page(request, "rehearsal.html", "Rehearsal", **context, **_shown(result))


def _shown(result: Rehearsal | None) -> dict[str, Any]:
    if result is None:
        return {"is_over": False}
    parts = (
        ("Rows", result.changes), ("Statements", result.statements), ("Signals", result.messages),
        ("Mail", result.mails), ("After the commit (did not run)", result.callbacks),
        ("Connections that were blocked", result.sockets),
    )  # fmt: skip
    return {
        "is_over": True, "place": html.short(result.receiver), "attempt": result.attempt,
        "runtime": f"{result.seconds * 1000:,.0f} ms",
        "error": html.block(result.error) if result.error else "",
        "traceback": html.block(result.traceback) if result.traceback else "",
        "parts": [
            (title, [printable(line, LINE_CHARS) for line in lines[:LINES]], max(0, len(lines) - LINES))
            for title, lines in parts
            if lines
        ],
    }  # fmt: skip

"""The admin's pages that list no rows: the receivers that this process knows, and failures by their cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse
from django.urls import path, reverse

from signalbus.admin import html_values as html
from signalbus.admin.read_only import ReadOnlyAdmin
from signalbus.services.actors import user_actor
from signalbus.services.explanation import explain, known_signals
from signalbus.services.groups import failure_groups
from signalbus.services.lookup import filter_from
from signalbus.services.pausing import paused

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

GROUPS: Final = 20  # failures by cause, on one page


class OverviewAdmin(ReadOnlyAdmin):
    """Links above the list of deliveries, and the pages that they lead to."""

    def get_urls(self) -> list[URLPattern]:
        """Add the addresses of the pages."""
        view = self.admin_site.admin_view
        return [
            path("receivers/", view(self.receivers), name="signalbus_receivers"),
            path("failures/", view(self.failures), name="signalbus_failures"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the list, with links to the pages."""
        tools = [(self._url("failures"), "Failures by cause"), (self._url("receivers"), "Receivers")]
        return super().changelist_view(request, {"tools": tools, **(extra_context or {})})

    def receivers(self, request: HttpRequest) -> HttpResponse:
        """Show the signals and receivers that this process knows, and what is paused."""
        self._require_view(request)
        pauses = {(each.kind, each.name): each for each in paused(user_actor(request.user, "admin"))}
        signals = []
        for name in known_signals():
            found = explain(name)
            rows = [
                {
                    "receiver": each,
                    "pause": pauses.get(("receiver", each.id)) or pauses.get(("queue", each.queue)),
                    "url": self._list_url(f"receiver:{each.id}"),
                }
                for each in found.receivers
            ]
            signals.append({"signal": found, "rows": rows, "pause": pauses.get(("signal", found.signal))})
        return self._page(request, "receivers.html", "Receivers", signals=signals, pauses=list(pauses.values()))

    def failures(self, request: HttpRequest) -> HttpResponse:
        """Show failures by their cause, the most frequent first."""
        self._require_view(request)
        groups, has_more = failure_groups(filter_from([]), GROUPS)
        rows = [
            {
                "what": f"{html.signal_of(group.example.message.signal)} → {html.receiver_of(group.example)}",
                "error": html.short(group.example.error),
                "first": html.age_of_row(group.first),
                "last": html.age_of_row(group.last),
                "example": html.link_to("delivery", group.example.pk, "latest", site=self.admin_site.name),
                "urls": [(state, number, self._list_url(f"group:{id_}", state)) for state, number in states.items()],
            }
            for group, id_, states in ((each, each.id, each.states) for each in groups)
        ]
        return self._page(request, "failures.html", "Failures by cause", rows=rows, has_more=has_more)

    def _page(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        request.current_app = self.admin_site.name
        shared = {**self.admin_site.each_context(request), "title": title, "opts": self.opts, "media": self.media}
        return TemplateResponse(request, f"signalbus/admin/{template}", {**shared, **context})

    def _require_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _url(self, page: str) -> str:
        return reverse(f"admin:signalbus_{page}", current_app=self.admin_site.name)

    def _list_url(self, words: str, state: str = "") -> str:
        url = reverse("admin:signalbus_delivery_changelist", current_app=self.admin_site.name)
        return f"{url}?{urlencode({'q': words, **({'state': state} if state else {})})}"

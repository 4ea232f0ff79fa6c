"""The admin's overviews: the receivers that this process knows, and failures by their cause.

`OverviewAdmin` is a base class of `DeliveryAdmin` in `delivery_pages`. It links to both above the list of deliveries,
and puts the web app at `web/` if that is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.urls import include, path, reverse

from signalbus.admin import html_values as html
from signalbus.admin.keyset_pages import AFTER
from signalbus.admin.read_only import BUTTONS, ReadOnlyAdmin
from signalbus.pages.delivery_search import id_in
from signalbus.services.actors import VIEW, user_actor
from signalbus.services.changes.pausing import PAUSE_KINDS, paused
from signalbus.services.groups import newest_failure_groups
from signalbus.services.queries.explanation import explain, known_signals

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    from signalbus.services.groups import FailureGroup

WEB_APP: Final = "signalbus.web"
GROUPS: Final = 20  # failures by cause, on one page


class OverviewAdmin(ReadOnlyAdmin):
    """Links above the list of deliveries, and the pages that they lead to."""

    def get_urls(self) -> list[URLPattern]:
        """Add the addresses of the pages."""
        view = self.admin_site.admin_view
        return [
            path("receivers/", view(self.receivers), name="signalbus_receivers"),
            path("failures/", view(self.failures), name="signalbus_failures"),
            *self._web_app(),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the list, with links to the pages."""
        tools = [(self.page_url("failures"), "Failures by cause"), (self.page_url("receivers"), "Receivers")]
        if apps.is_installed(WEB_APP):
            url = reverse("admin:signalbus_web:overview", current_app=self.admin_site.name)
            tools.insert(0, (url, "The web app"))
        return super().changelist_view(request, {"tools": tools, **(extra_context or {})})

    def receivers(self, request: HttpRequest) -> HttpResponse:
        """Show the signals and receivers that this process knows, and what is paused."""
        actor = user_actor(request.user, "admin")
        actor.require(VIEW)
        pauses = {(each.kind, each.name) for each in paused(actor, counts_held=False)}
        signals = []
        for name in known_signals():
            found = explain(name)
            rows = [
                {
                    "receiver": each,
                    "is_paused": not pauses.isdisjoint({("receiver", each.id), ("queue", each.queue)}),
                    "url": self.page_url("delivery_changelist", q=f"receiver:{each.id}"),
                    "pause_url": self.page_url("pause", kind="receiver", name=each.id),
                }
                for each in found.receivers
            ]
            pause_url = self.page_url("pause", kind="signal", name=found.signal)
            is_paused = ("signal", found.signal) in pauses
            signals.append({"signal": found, "rows": rows, "is_paused": is_paused, "pause_url": pause_url})
        return self.own_page(request, "receivers.html", "Receivers", signals=signals, kinds=PAUSE_KINDS)

    def failures(self, request: HttpRequest) -> HttpResponse:
        """Show failures by their cause, the most frequent first, among the newest ones."""
        user_actor(request.user, "admin").require(VIEW)
        after = id_in(request.GET.get(AFTER, ""))
        found = newest_failure_groups(GROUPS, after)
        context = {
            "rows": [self._cause(group) for group in found.groups], "has_more": found.has_more,
            "looked_at": found.looked_at, "is_first": after is None, "bulk_actions": BUTTONS,
            "further_url": "" if found.end is None else self.page_url("failures", after=str(found.end)),
        }  # fmt: skip
        return self.own_page(request, "failures.html", "Failures by cause", **context)

    def _web_app(self) -> list[Any]:
        """Return the addresses of the web app, behind the login of this admin site, if the project has installed it."""
        if not apps.is_installed(WEB_APP):
            return []
        from signalbus.web.urls import app_name, patterns  # noqa: PLC0415 - who has not installed it pays nothing

        return [path("web/", include((patterns(self.admin_site.admin_view), app_name)))]

    def _cause(self, group: FailureGroup) -> dict[str, Any]:
        """Return what the page shows of a cause; its buttons choose all its deliveries in the list."""
        words, receiver = f"group:{group.id}", group.example.receiver
        return {
            "what": f"{html.signal_of(group.example.message.signal)} → {html.receiver_of(group.example)}",
            "error": html.short(group.example.error), "example": group.example,
            "first": html.age_of_row(group.first), "last": html.age_of_row(group.last),
            "latest": html.link_to("delivery", group.example.pk, "latest", site=self.admin_site.name),
            "urls": [
                (state, number, self.page_url("delivery_changelist", q=words, state=state))
                for state, number in group.states.most_common()
            ],
            "choose_url": self.page_url("delivery_changelist", q=words, state=",".join(sorted(group.states))),
            "pause_url": self.page_url("pause", kind="receiver", name=receiver) if receiver else "",
        }  # fmt: skip

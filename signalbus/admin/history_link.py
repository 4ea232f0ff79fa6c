"""Put a link "Signals" beside "History" on the admin page of a project's own model: what was sent about the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.text import capfirst

from signalbus.admin import html_values as html
from signalbus.admin.read_only import banners
from signalbus.core.printable_text import printable
from signalbus.services.actors import OPERATE, VIEW, may
from signalbus.services.queries.lookup import history_of

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    Base = ModelAdmin[Any]
else:
    Base = object

MESSAGES: Final = 100  # on one page


class SignalsHistoryMixin(Base):
    """A mixin for a `ModelAdmin`: ``class OrderAdmin(SignalsHistoryMixin, admin.ModelAdmin)``.

    The page needs the permission `signalbus.view_delivery`, beside those that the row's own page needs.
    """

    def get_urls(self) -> list[URLPattern]:
        """Add the address of the page."""
        view = self.admin_site.admin_view(self.signals_view)
        return [path("<path:object_id>/signals/", view, name=self._signals_name()), *super().get_urls()]

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Render the row's page with the link, on top of whatever template it has."""
        response = super().render_change_form(request, context, *args, **kwargs)
        original = context.get("original")
        if original is not None and may(request.user, VIEW) and isinstance(response, TemplateResponse):
            context = response.context_data = {} if response.context_data is None else response.context_data
            context["signals_base"] = response.resolve_template(response.template_name)
            context["signals_url"] = reverse(
                f"admin:{self._signals_name()}", args=(quote(original.pk),), current_app=self.admin_site.name
            )
            response.template_name = "signalbus/admin/form_with_signals.html"
        return response

    def signals_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the messages about a row, with their deliveries.

        Raises:
            PermissionDenied: the user may not see the row, or no deliveries.
        """
        row = self.get_object(request, unquote(object_id), None)
        if not may(request.user, VIEW) or not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]  # as Django's own views
        found = history_of(f"{self.opts.label}:{row.pk}", MESSAGES)
        site = self.admin_site.name
        messages = [
            {
                "link": html.link_to("storedmessage", each.row.pk, html.signal_of(each.row.signal), site=site),
                "sent": html.time_of_row(each.row.created_at),
                "deliveries": [html.row_of_delivery(delivery, site=site) for delivery in each.deliveries],
            }
            for each in reversed(found.messages)
        ]
        request.current_app, shown = site, printable(str(row), html.NAME_CHARS)
        context = {
            **self.admin_site.each_context(request), "title": f"Signals about {shown}", "shown": shown,
            "opts": self.opts, "name": capfirst(self.opts.verbose_name_plural), "row": row, "messages_sent": messages,
            "has_more": found.has_more, "pauses": banners(request.user, site),
            "can_operate": may(request.user, OPERATE),
            "searched_from": None if found.searched_from is None else html.time_of_row(found.searched_from),
        }  # fmt: skip
        return TemplateResponse(request, "signalbus/admin/history.html", context)

    def _signals_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_signals"

"""The base of the admin's pages: rows can be looked at, and not be added, changed or deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.filters import SimpleListFilter
from django.contrib.admin.utils import flatten_fieldsets
from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.text import capfirst

from signalbus.admin import html_values as html
from signalbus.admin.keyset_pages import KeysetChangeList
from signalbus.ledger import operations as ledger
from signalbus.models import State
from signalbus.pages.bounded_search import Search, read_search
from signalbus.pages.delivery_search import words_of
from signalbus.services.actors import OPERATE, VIEW, may, user_actor
from signalbus.services.changes.pausing import paused

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest, HttpResponse

    Page = admin.ModelAdmin[Any]
else:
    Page = admin.ModelAdmin  # which takes no type at run time

BANNERS = 20  # pauses that a page names
REASON_CHARS = 500
BUTTONS = (("retry_deliveries", "Retry…"), ("discard_deliveries", "Discard…"))  # actions of the list of deliveries


class WordFilter(SimpleListFilter):
    """A filter beside a list that adds a word to the search: the parameter's name and its value."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Leave the rows to the search."""


class StateFilter(WordFilter):
    """Select deliveries by their state."""

    title: str = "state"
    parameter_name: str = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002 - as above
        """Return the states."""
        return [(state.value, state.value) for state in State]


class SinceFilter(WordFilter):
    """Select rows by their age."""

    title: str = "age"
    parameter_name: str = "since"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002 - as above
        """Return ages."""
        return [("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days")]


class ReadOnlyAdmin(Page):
    """A page that shows rows of the ledger to users with the permission `signalbus.view_delivery`."""

    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by: ClassVar[tuple[str, ...]] = ()
    search_fields: ClassVar[tuple[str, ...]] = ("pk",)  # shows the search box; `search` reads it

    class Media:
        """The style of long texts and of states."""

        css: ClassVar[dict[str, list[str]]] = {"all": ["signalbus/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002 - as above
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002 - as above
        """Refuse."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002 - as above
        """Return whether the user may see deliveries."""
        return may(request.user, VIEW)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether the user sees the pages in the index."""
        return self.has_view_permission(request)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may change deliveries; Django asks for the actions, and for the page's buttons."""
        return may(request.user, OPERATE)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:  # noqa: ARG002 - as above
        """Return all fields of the page."""
        return flatten_fieldsets(self.fieldsets or ())

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:  # noqa: ARG002 - as above
        """Return all rows, from the ledger's database."""
        rows: QuerySet[Any] = self.model._default_manager.using(ledger.using())  # noqa: SLF001 - Django documents it
        return rows

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:  # noqa: ARG002 - as above
        """Return the class of the list."""
        return KeysetChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:  # noqa: ARG002
        """Allow the filters beside the list, and no column: a regular expression could take all day."""
        return lookup in {each.parameter_name for each in self.list_filter}  # type: ignore[union-attr]  # WordFilters

    def search(self, request: HttpRequest, query: str) -> Search:
        """Return the search that the box and the filters beside the list ask for.

        Args:
            request: its parameters hold the filters.
            query: the text of the box.
        """
        return read_search(lambda: self.search_for(self.words(request, query)))

    def words(self, request: HttpRequest, query: str) -> list[str]:
        """Return the words that the box and the filters beside the list ask for.

        Raises:
            FilterError: the box cannot be split into words.
        """
        names = [each.parameter_name for each in self.list_filter]  # type: ignore[union-attr]  # WordFilters
        return [*words_of(query), *(f"{name}:{value}" for name in names if (value := request.GET.get(name)))]

    def search_for(self, words: list[str]) -> Search:
        """Return the search that words ask for.

        Args:
            words: as `signalbus.services.filters.parse_filter` takes them.

        Raises:
            FilterError: a word cannot be read.
        """
        raise NotImplementedError

    def rows_of_list(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows with what a list shows of them, and without long texts.

        Args:
            rows: all rows.
        """
        return rows

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the list; "all" is what the filter selects, of which there may be more than were counted."""
        shown = {"title": capfirst(self.opts.verbose_name_plural), "selection_note_all": "All that the filter selects"}
        return super().changelist_view(request, {**shown, **self.shared(request), **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Show a row."""
        return super().change_view(request, object_id, form_url, {**self.shared(request), **(extra_context or {})})

    def shared(self, request: HttpRequest) -> dict[str, Any]:
        """Return what all pages show: what is paused, and whether the user may change something.

        Args:
            request: the request.
        """
        pauses = banners(request.user, self.admin_site.name) if self.has_view_permission(request) else []
        return {"pauses": pauses, "can_operate": self.has_operate_permission(request)}

    def own_page(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        """Render a page of ours that is neither a list nor a form of Django's.

        Args:
            request: the request.
            template: its name in `signalbus/admin/`.
            title: of the page.
            context: what else the template shows.

        Raises:
            PermissionDenied: the user must not see deliveries.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        request.current_app = self.admin_site.name
        shared = {**self.admin_site.each_context(request), "title": title, "opts": self.opts, "media": self.media}
        return TemplateResponse(request, f"signalbus/admin/{template}", {**shared, **self.shared(request), **context})

    def page_url(self, page: str, **parameters: str) -> str:
        """Return the address of a page of ours.

        Args:
            page: the name of its URL, without "signalbus_".
            parameters: of the query; empty ones are left out.
        """
        url = reverse(f"admin:signalbus_{page}", current_app=self.admin_site.name)
        given = {name: value for name, value in parameters.items() if value}
        return f"{url}?{urlencode(given)}" if given else url


def banners(user: Any, site: str) -> list[dict[str, Any]]:
    """Return what each page of ours shows of pauses.

    Args:
        user: who looks at the page, and may see deliveries.
        site: the name of the admin site.
    """
    found = paused(user_actor(user, "admin"), counts_held=False, limit=BANNERS)
    return [html.pause_banner(each, site=site) for each in found]

"""List rows page by page, the youngest first, at a cost that does not grow with the table.

`pages/bounded_search` finds the rows. The count stops at 1,000. The page says how many rows were looked at, and offers
to go on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib import messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError

from signalbus.admin.html_values import ERROR_CHARS
from signalbus.core.printable_text import printable
from signalbus.pages.bounded_search import COUNTED, FoundKeys, Search, find_keys
from signalbus.services.filters import MAX_CHARACTERS

if TYPE_CHECKING:
    from django.contrib.admin.filters import ListFilter
    from django.db.models import QuerySet
    from django.http import HttpRequest

AFTER: Final = "after"  # the parameter with the key that a page begins after


class KeysetChangeList(ChangeList):
    """The list of an admin page; its model admin has a method `search`, which reads the request's words."""

    query: str
    params: dict[str, Any]
    filter_params: dict[str, list[str]]
    filter_specs: list[ListFilter]
    has_filters: bool
    has_active_filters: bool
    clear_all_filters_qs: str
    result_list: Any
    result_count: int
    full_result_count: int
    paginator: Any
    searched: Search
    after: Any
    count_text: str
    searched_text: str
    older_url: str
    further_url: str
    newest_url: str

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Return the parameters of filters; the key that a page begins after is none."""
        return {name: value for name, value in super().get_filters_params(params).items() if name != AFTER}

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:  # noqa: ARG002
        """Return the rows that the search selects, without a bound; `get_results` and the actions add it."""
        # Templates show them again.
        self.query = printable(self.query, MAX_CHARACTERS + 1)
        self.params = {name: printable(value, MAX_CHARACTERS) for name, value in self.params.items()}
        self.filter_params = {
            name: [printable(value, MAX_CHARACTERS) for value in values] for name, values in self.filter_params.items()
        }
        self.filter_specs, self.has_filters, _, _, self.has_active_filters = self.get_filters(request)
        self.clear_all_filters_qs = self.get_query_string(remove=[*self.get_filters_params(), AFTER])
        self.searched = self.model_admin.search(request, self.query)  # type: ignore[attr-defined]  # a ReadOnlyAdmin
        rows = self.root_queryset
        return rows.none() if self.searched.error else rows.filter(self.searched.condition).order_by("-pk")

    def get_results(self, request: HttpRequest) -> None:
        """Find the rows of this page."""
        self.after = self._key(request.GET.get(AFTER))
        if self.searched.error:
            messages.error(request, printable(self.searched.error, ERROR_CHARS))
        size = self.list_per_page
        found = find_keys(self.root_queryset, self.searched, COUNTED if self.after is None else size, self.after)
        keys = found.keys[:size]
        rows = self.model_admin.rows_of_list(self.root_queryset)  # type: ignore[attr-defined]
        self.result_list = list(rows.filter(pk__in=keys).order_by("-pk")) if keys else []
        self._tell_count(found, len(keys))
        has_more = found.has_more or len(found.keys) > len(keys)
        self.older_url = self._url(keys[-1]) if has_more else ""
        self.further_url = "" if found.end is None or has_more else self._url(found.end)
        self.newest_url = "" if self.after is None else self._url(None)
        self._fill_what_templates_read(request)

    def _tell_count(self, found: FoundKeys, shown: int) -> None:
        self.result_count = len(found.keys) + found.has_more
        self.searched_text = f"{self.searched.most:,}"
        name = self.opts.verbose_name if self.result_count == 1 else self.opts.verbose_name_plural
        if self.after is not None:
            self.count_text = f"{shown} more {name}"
        else:
            self.count_text = f"{len(found.keys):,}{'+' if found.has_more else ''} {name}"

    def _fill_what_templates_read(self, request: HttpRequest) -> None:
        self.full_result_count = self.result_count  # the search form shows no count
        self.show_full_result_count = False
        self.show_admin_actions = True
        self.can_show_all = self.multi_page = False
        self.paginator = self.model_admin.get_paginator(request, self.result_list, self.list_per_page)

    def _url(self, after: Any) -> str:
        return self.get_query_string({AFTER: None if after is None else str(after)}, remove=[AFTER])

    def _key(self, text: str | None) -> Any:
        try:
            return None if text is None else self.lookup_opts.pk.to_python(text)
        except ValidationError:
            return None

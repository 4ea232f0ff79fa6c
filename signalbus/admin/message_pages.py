"""The admin's pages of messages: the list, and one message with its deliveries and its cascade as a tree."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from django.contrib import admin
from django.db.models import Q

from signalbus.admin import html_values as html
from signalbus.admin.payloads import payload_for
from signalbus.admin.read_only import ReadOnlyAdmin, SinceFilter, WordFilter
from signalbus.pages.bounded_search import Search
from signalbus.services.filters import FilterError
from signalbus.services.queries.lookup import SCANNED, cascade_of, filter_from, message_of
from signalbus.services.redaction import context_of, origin_of
from signalbus.wire.subjects import lines_of

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from signalbus.models import StoredMessage
    from signalbus.services.queries.lookup import FoundMessage

# Conditions of a filter, which are about deliveries, and the same about messages.
COLUMNS: Final = {"message__signal": "signal", "message__subject": "subject", "message_id": "id"}
KEYS: Final = ("signal", "subject", "message", "root", "since", "until")
NEAR: Final = 20_000  # messages after the root in which the parts that older versions sent are looked for at first
INDEXED: Final = ("subject", "message", "root")


class MessageAdmin(ReadOnlyAdmin):
    """Messages."""

    list_display: tuple[str, ...] = ("shown_signal", "about", "age", "id")
    list_filter: ClassVar[tuple[type[WordFilter], ...]] = (SinceFilter,)
    search_help_text: ClassVar[str] = "Words as signal:shop.order_paid subject:shop.order:42 message:ID"
    fieldsets: ClassVar[Any] = (
        (None, {"fields": ("shown_signal", "about", "also_about", "sent", "sender", "origin", "context")}),
        ("Deliveries", {"fields": ("deliveries",)}),
        ("Cascade", {"fields": ("cascade",)}),
        ("Payload", {"fields": ("payload",)}),
    )

    def search_for(self, words: list[str]) -> Search:
        """Return the search that words ask for.

        Raises:
            FilterError: a word cannot be read, or is about deliveries.
        """
        for word in words:
            key = word.partition(":")[0]
            if key not in KEYS:
                raise FilterError(f"Messages have no {key!r}: search for {', '.join(KEYS)}, or among the deliveries.")
        wanted = filter_from(words)
        by_index = [word for word in wanted.words if word.partition(":")[0] in INDEXED]
        return Search(
            shlex.join(wanted.words),
            _about_messages(wanted.condition),
            _about_messages(filter_from(by_index).condition),
            is_indexed=len(by_index) == len(wanted.words),
        )

    def rows_of_list(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return messages without their texts."""
        return rows.defer("text")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return a message with its deliveries."""
        found = super().get_object(request, object_id, from_field)
        if found is not None:
            found.stored, found.viewer = message_of(found.pk), request.user
            found.looks_far = "far" in request.GET
        return found

    @admin.display(description="signal")
    def shown_signal(self, message: StoredMessage) -> str:
        """Name the signal."""
        return html.signal_of(message.signal)

    @admin.display(description="about")
    def about(self, message: StoredMessage) -> str:
        """Name the row that it is about."""
        return html.short(message.subject) or html.NONE

    @admin.display(description="age")
    def age(self, message: StoredMessage) -> SafeString | str:
        """Tell how long ago it was sent."""
        return html.age_of_row(message.created_at)

    @admin.display(description="sent")
    def sent(self, message: StoredMessage) -> SafeString | str:
        """Tell when it was sent."""
        return html.time_of_row(message.created_at)

    @admin.display(description="sent by")
    def sender(self, message: Any) -> SafeString | str:
        """Link to the message whose receiver sent it."""
        read = _read(message)
        if read is None or read.parent is None:
            return html.NONE
        return html.link_to("storedmessage", read.parent, f"a receiver of {read.parent}", site=self.admin_site.name)

    @admin.display(description="also about")
    def also_about(self, message: StoredMessage) -> str:
        """Name the other rows that it names."""
        return html.short(", ".join(lines_of(message.more_subjects))) or html.NONE

    @admin.display(description="origin")
    def origin(self, message: Any) -> SafeString | str:
        """Show who sent it, as a request and a user; secrets are hidden."""
        found = origin_of(_read(message))
        return html.block(json.dumps(found)) if found else html.NONE

    @admin.display(description="context")
    def context(self, message: Any) -> SafeString | str:
        """Show the context of the sender that it carries, as its tenant; secrets are hidden."""
        found = context_of(_read(message))
        return html.block(json.dumps(found)) if found else html.NONE

    @admin.display(description="deliveries")
    def deliveries(self, message: Any) -> str:
        """List the deliveries."""
        found = [] if message.stored is None else message.stored.deliveries
        return html.table_of_deliveries(found, site=self.admin_site.name) if found else "none that is kept"

    @admin.display(description="messages of this cascade")
    def cascade(self, message: Any) -> str:
        """Show the cascade as a tree."""
        if message.stored is None:
            return html.NONE
        found = cascade_of(message.stored, scanned=SCANNED if message.looks_far else NEAR)
        if not found.root.children and found.is_whole:
            return "this message alone"
        return html.rendered(
            "cascade.html",
            tree=[self._node(found.root, message)],
            is_whole=found.is_whole,
            looked_far=message.looks_far,
        )

    @admin.display(description="payload")
    def payload(self, message: Any) -> SafeString | str:
        """Show the payload, to who may see it."""
        return payload_for(message.viewer, message.stored)

    def _node(self, found: FoundMessage, current: StoredMessage) -> dict[str, Any]:
        site = self.admin_site.name
        return {
            "is_current": found.row.pk == current.pk,
            "link": html.link_to("storedmessage", found.row.pk, html.signal_of(found.row.signal), site=site),
            "about": html.short(found.row.subject),
            "deliveries": [html.row_of_delivery(each, site=site) for each in found.deliveries],
            "children": [self._node(each, current) for each in found.children],
        }


def _read(message: Any) -> Any:
    """Return the message as its text says; None if it cannot be read."""
    return None if message.stored is None else message.stored.message


def _about_messages(condition: Q) -> Q:
    """Return a condition on deliveries as one on their messages."""
    changed = Q(_connector=condition.connector, _negated=condition.negated)
    for child in condition.children:
        if isinstance(child, Q):
            changed.children.append(_about_messages(child))
        else:
            name, value = cast("tuple[str, Any]", child)  # no expressions in a filter
            column, separator, lookup = name.rpartition("__") if name not in COLUMNS else (name, "", "")
            changed.children.append((f"{COLUMNS.get(column, column)}{separator}{lookup}", value))
    return changed

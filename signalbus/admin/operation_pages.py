"""The admin's page of operations: the audit log of who retried, discarded, paused or resumed what, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin

from signalbus.admin import html_values as html
from signalbus.admin.read_only import ReadOnlyAdmin
from signalbus.pages.bounded_search import Search

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

    from signalbus.models import Operation


class OperationAdmin(ReadOnlyAdmin):
    """The audit log."""

    list_display: tuple[str, ...] = ("when", "shown_kind", "who", "target", "shown_reason", "numbers", "shown_state")
    search_fields: ClassVar[tuple[str, ...]] = ()
    fieldsets: ClassVar[Any] = (
        (None, {"fields": ("shown_kind", "who", "whole_reason", "shown_state", "rate")}),
        ("Deliveries", {"fields": ("whole_target", "numbers", "shown_details")}),
        ("Times", {"fields": ("created", "started", "ended")}),
    )

    def search_for(self, words: list[str]) -> Search:  # noqa: ARG002 - there is no search box
        """Return the search for all."""
        return Search()

    @admin.display(description="when")
    def when(self, operation: Operation) -> SafeString | str:
        """Tell how long ago."""
        return html.age_of_row(operation.created_at)

    @admin.display(description="operation")
    def shown_kind(self, operation: Operation) -> str:
        """Name what was done."""
        return html.short(operation.kind)

    @admin.display(description="by")
    def who(self, operation: Operation) -> str:
        """Name the person, and the way."""
        return html.short(f"{operation.by or 'somebody'} ({operation.through})")

    @admin.display(description="what")
    def target(self, operation: Operation) -> str:
        """Name what it was done to, on one line."""
        chosen = operation.filter if isinstance(operation.filter, dict) else {}
        return html.short(", ".join(f"{key}:{value}" for key, value in chosen.items() if key != "ids"))

    @admin.display(description="reason")
    def shown_reason(self, operation: Operation) -> str:
        """Show the reason on one line."""
        return html.short(operation.reason) or html.NONE

    @admin.display(description="deliveries")
    def numbers(self, operation: Operation) -> str:
        """Show the numbers of deliveries."""
        counts = operation.counts if isinstance(operation.counts, dict) else {}
        return html.short(", ".join(f"{number} {name}" for name, number in counts.items())) or html.NONE

    @admin.display(description="state")
    def shown_state(self, operation: Operation) -> str:
        """Show whether it is done."""
        return html.short(operation.state)

    @admin.display(description="reason")
    def whole_reason(self, operation: Operation) -> SafeString | str:
        """Show the reason."""
        return html.block(operation.reason) if operation.reason else html.NONE

    @admin.display(description="what")
    def whole_target(self, operation: Operation) -> str:
        """Show all that it was done to."""
        return _as_block(operation.filter)

    @admin.display(description="details")
    def shown_details(self, operation: Operation) -> str:
        """Show what else belongs to it."""
        return _as_block(operation.details)

    @admin.display(description="asked for")
    def created(self, operation: Operation) -> SafeString | str:
        """Tell when it was asked for."""
        return html.time_of_row(operation.created_at)

    @admin.display(description="started")
    def started(self, operation: Operation) -> SafeString | str:
        """Tell when it started."""
        return html.time_of_row(operation.started_at)

    @admin.display(description="ended")
    def ended(self, operation: Operation) -> SafeString | str:
        """Tell when it ended."""
        return html.time_of_row(operation.ended_at)


def _as_block(value: Any) -> str:
    return html.block(json.dumps(value, indent=2)) if value else html.NONE

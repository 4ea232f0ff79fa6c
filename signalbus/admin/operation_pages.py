"""The admin's page of operations: the audit log of who retried, discarded, paused or resumed what, and why.

The page of an operation in bulk shows its progress, and has buttons that pause, resume and cancel it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin, messages
from django.core.exceptions import BadRequest
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse

from signalbus.admin import html_values as html
from signalbus.admin.read_only import REASON_CHARS, ReadOnlyAdmin
from signalbus.core.printable_text import printable
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.pages.bounded_search import Search
from signalbus.services.actors import OPERATE, may, user_actor
from signalbus.services.changes.bulk_operations import (
    CHANGES,
    UnknownOperation,
    change_operation,
    failed_again,
    operation,
    progress_of,
)

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern
    from django.utils.safestring import SafeString

    from signalbus.models import Operation


PROGRESS: Final = "Progress"
# By state, the changes that can be made to an operation in bulk, with the texts of their buttons.
BUTTONS: Final = {
    "waiting": (("pause", "Pause"), ("cancel", "Cancel")),
    "running": (("pause", "Pause"), ("cancel", "Cancel")),
    "paused": (("resume", "Resume"), ("cancel", "Cancel")),
}


class OperationAdmin(ReadOnlyAdmin):
    """The audit log."""

    list_display: tuple[str, ...] = ("when", "shown_kind", "who", "target", "shown_reason", "numbers", "shown_state")
    search_fields: ClassVar[tuple[str, ...]] = ()
    fieldsets: ClassVar[Any] = (
        (None, {"fields": ("shown_kind", "who", "whole_reason", "shown_state", "rate")}),
        (PROGRESS, {"fields": ("progress", "stopped", "failing")}),
        ("Deliveries", {"fields": ("whole_target", "numbers", "shown_details")}),
        ("Times", {"fields": ("created", "started", "ended")}),
    )

    def get_urls(self) -> list[URLPattern]:
        """Add the address that the buttons are sent to."""
        view = self.admin_site.admin_view(self.change_operation)
        return [path("<int:number>/steer/", view, name="signalbus_change_operation"), *super().get_urls()]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; only an operation in bulk has a progress."""
        shown = super().get_fieldsets(request, obj)
        return shown if obj is not None and obj.bulk is not None else [each for each in shown if each[0] != PROGRESS]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return a line of the audit log, with the operation in bulk that it is, if it is one."""
        found = super().get_object(request, object_id, from_field)
        if found is not None:
            found.bulk, found.failing = None, []
            if found.kind in ledger.CHANGED and "stage" in found.details:
                actor = user_actor(request.user, "admin")
                found.bulk, found.failing = operation(actor, found.pk), failed_again(actor, found.pk)
        return found

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Show an operation, with the buttons that its state and the user's permission allow."""
        found = self.get_object(request, object_id) if may(request.user, OPERATE) else None
        buttons = () if found is None or found.bulk is None else BUTTONS.get(found.state, ())
        shown = {"operation_buttons": buttons, "number": found and found.pk, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, shown)

    def change_operation(self, request: HttpRequest, number: int) -> HttpResponse:
        """Pause, resume or cancel an operation.

        Raises:
            PermissionDenied: the user must not.
            BadRequest: it is not what our form sends.
        """
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        actor, change = user_actor(request.user, "admin"), request.POST.get("change", "")
        actor.require(OPERATE)
        reason = request.POST.get("reason", "")[:REASON_CHARS].strip()
        wanted = next((each for each in CHANGES if each == change), None)
        if wanted is None:
            raise BadRequest("no such change")
        try:
            change_operation(wanted, number, actor=actor, reason=reason)
        except UnknownOperation as error:
            raise Http404(str(error)) from error
        except ConfigurationError as error:  # it has ended meanwhile
            self.message_user(request, printable(str(error)), messages.WARNING)
        page = reverse("admin:signalbus_operation_change", args=(number,), current_app=self.admin_site.name)
        return HttpResponseRedirect(page)

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

    @admin.display(description="progress")
    def progress(self, operation: Any) -> str:
        """Show how far it has come."""
        return progress_of(operation.bulk)

    @admin.display(description="stopped because of")
    def stopped(self, operation: Any) -> SafeString | str:
        """Show the failure that stopped it."""
        return html.block(operation.bulk.stopped_because) if operation.bulk.stopped_because else html.NONE

    @admin.display(description="failed again")
    def failing(self, operation: Any) -> str:
        """List deliveries that failed again."""
        rows = operation.failing
        return html.table_of_deliveries(rows, site=self.admin_site.name) if rows else html.NONE

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

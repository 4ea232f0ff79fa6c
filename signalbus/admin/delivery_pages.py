"""The admin's pages of deliveries: the list with its filters, and one delivery with its errors and siblings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin
from django.http import HttpResponseRedirect
from django.urls import reverse

from signalbus.admin import html_values as html
from signalbus.admin.bulk_changes import BulkChangesAdmin
from signalbus.admin.pause_pages import PausesAdmin
from signalbus.admin.payloads import payload_for
from signalbus.admin.read_only import BUTTONS, SinceFilter, StateFilter, WordFilter
from signalbus.admin.receiver_pages import OverviewAdmin
from signalbus.admin.rehearsal_pages import RehearsalAdmin
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, State, StoredMessage
from signalbus.pages.delivery_search import id_in, search_deliveries
from signalbus.services.actors import VIEW_PAYLOAD, may
from signalbus.services.queries.lookup import message_of

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from signalbus.pages.bounded_search import Search


ATTEMPTS: Final = 20  # more than are kept
SIBLINGS: Final = 100


class DeliveryAdmin(OverviewAdmin, PausesAdmin, RehearsalAdmin, BulkChangesAdmin):
    """Deliveries."""

    list_display: tuple[str, ...] = ("what", "shown_state", "about", "attempts", "age", "due", "shown_error")
    list_filter: ClassVar[tuple[type[WordFilter], ...]] = (StateFilter, SinceFilter)
    search_help_text: ClassVar[str] = (
        "An id, or words as receiver:crm.* signal:shop.order_paid subject:shop.order:42 error:KeyError attempts:>1 "
        "queue:email"
    )
    fieldsets: ClassVar[Any] = (
        (None, {"fields": ("shown_state", "sent_message", "shown_receiver", "about", "queue_name", "attempts")}),
        ("Times", {"fields": ("sent", "due", "started", "ended", "runtime", "shown_worker")}),
        ("Failure", {"fields": ("failed", "whole_error", "shown_traceback", "earlier_failures")}),
        ("Message", {"fields": ("payload", "siblings")}),
    )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the list; an id in the search box leads to its page."""
        wanted = id_in(request.GET.get("q", ""))
        if request.method == "GET" and wanted is not None and self.has_view_permission(request):
            alias = ledger.using()
            for model, page in ((Delivery, "delivery"), (StoredMessage, "storedmessage")):
                if model._default_manager.using(alias).filter(pk=wanted).exists():  # noqa: SLF001 - Django documents it
                    url = reverse(f"admin:signalbus_{page}_change", args=(wanted,), current_app=self.admin_site.name)
                    return HttpResponseRedirect(url)
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Show a delivery, with the buttons of the actions."""
        context = {
            "bulk_actions": BUTTONS,
            "can_read_payload": may(request.user, VIEW_PAYLOAD),
            **(extra_context or {}),
        }
        return super().change_view(request, object_id, form_url, context)

    def search_for(self, words: list[str]) -> Search:
        """Return the search that words ask for.

        Raises:
            FilterError: a word cannot be read.
        """
        return search_deliveries(words)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return all deliveries, with their messages."""
        return super().get_queryset(request).select_related("message")

    def rows_of_list(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return deliveries without texts and tracebacks."""
        return rows.defer("traceback", "message__text")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return a delivery, with all of its message, and the user who looks at it."""
        found = super().get_object(request, object_id, from_field)
        if found is not None:
            # Once for all fields of the page.
            found.stored, found.viewer = message_of(found.message_id), request.user
        return found

    @admin.display(description="signal → receiver")
    def what(self, delivery: Delivery) -> str:
        """Name signal and receiver."""
        return f"{html.signal_of(delivery.message.signal)} → {html.receiver_of(delivery)}"

    @admin.display(description="state")
    def shown_state(self, delivery: Delivery) -> SafeString:
        """Show the state."""
        return html.state_of(delivery)

    @admin.display(description="about")
    def about(self, delivery: Delivery) -> str:
        """Name the row that the message is about."""
        return html.short(delivery.message.subject) or html.NONE

    @admin.display(description="age")
    def age(self, delivery: Delivery) -> SafeString | str:
        """Tell how long ago the message was sent."""
        return html.age_of_row(delivery.created_at)

    @admin.display(description="due")
    def due(self, delivery: Delivery) -> SafeString | str:
        """Tell when a waiting delivery is published next."""
        waits = State(delivery.state).facts.is_waiting and delivery.state != State.PUBLISHED
        return html.age_of_row(delivery.due_at) if waits else html.NONE

    @admin.display(description="error")
    def shown_error(self, delivery: Delivery) -> str:
        """Show the last error, or why it is held, on one line."""
        reason = delivery.held_reason if delivery.state == State.HELD else None
        return html.short(f"held: {reason}" if reason else delivery.error) or html.NONE

    @admin.display(description="message")
    def sent_message(self, delivery: Delivery) -> SafeString:
        """Link to the message."""
        shown = f"{html.signal_of(delivery.message.signal)} {delivery.message_id}"
        return html.link_to("storedmessage", delivery.message_id, shown, site=self.admin_site.name)

    @admin.display(description="receiver")
    def shown_receiver(self, delivery: Delivery) -> str:
        """Name the receiver."""
        return html.receiver_of(delivery)

    @admin.display(description="queue")
    def queue_name(self, delivery: Delivery) -> str:
        """Name the queue."""
        return html.short(delivery.queue) or "(the default queue)"

    @admin.display(description="sent")
    def sent(self, delivery: Delivery) -> SafeString | str:
        """Tell when it was sent."""
        return html.time_of_row(delivery.created_at)

    @admin.display(description="started")
    def started(self, delivery: Delivery) -> SafeString | str:
        """Tell when its last attempt started."""
        return html.time_of_row(delivery.started_at)

    @admin.display(description="ended")
    def ended(self, delivery: Delivery) -> SafeString | str:
        """Tell when it ended."""
        return html.time_of_row(delivery.ended_at)

    @admin.display(description="runtime")
    def runtime(self, delivery: Delivery) -> str:
        """Tell how long it ran."""
        return html.NONE if delivery.runtime_ms is None else f"{delivery.runtime_ms:,} ms"

    @admin.display(description="worker")
    def shown_worker(self, delivery: Delivery) -> str:
        """Name the worker."""
        return html.short(delivery.worker) or html.NONE

    @admin.display(description="failed")
    def failed(self, delivery: Delivery) -> SafeString | str:
        """Tell when it failed."""
        return html.time_of_row(delivery.failed_at)

    @admin.display(description="error")
    def whole_error(self, delivery: Delivery) -> SafeString | str:
        """Show the last error, or why it is held."""
        reason = delivery.held_reason if delivery.state == State.HELD else None
        text = f"held: {reason}" if reason else delivery.error
        return html.block(text) if text else html.NONE

    @admin.display(description="traceback")
    def shown_traceback(self, delivery: Delivery) -> SafeString | str:
        """Show the traceback."""
        return html.block(delivery.traceback) if delivery.traceback else html.NONE

    @admin.display(description="failed attempts")
    def earlier_failures(self, delivery: Any) -> str:
        """Show the attempts that failed, also those before one that succeeded."""
        stored = delivery.stored
        kept = [] if stored is None else stored.attempts.get(delivery.pk, [])
        rows = [
            {
                "number": attempt.number,
                "ended": html.time_of_row(attempt.ended_at),
                "runtime": "" if attempt.runtime_ms is None else f"{attempt.runtime_ms:,} ms",
                "worker": html.short(" ".join(filter(None, (attempt.worker, attempt.release)))),
                "error": html.short(attempt.error),
                "traceback": html.block(attempt.traceback) if attempt.traceback else "",
            }
            for attempt in kept[:ATTEMPTS]
        ]
        return html.rendered("attempts.html", rows=rows) if rows else html.NONE

    @admin.display(description="payload")
    def payload(self, delivery: Any) -> SafeString | str:
        """Show the payload, to who may see it."""
        return payload_for(delivery.viewer, delivery.stored)

    @admin.display(description="deliveries of this message")
    def siblings(self, delivery: Any) -> str:
        """List the deliveries of the message to other receivers."""
        stored = delivery.stored
        others = [] if stored is None else [each for each in stored.deliveries if each.pk != delivery.pk]
        return html.table_of_deliveries(others[:SIBLINGS], site=self.admin_site.name) if others else "no others"

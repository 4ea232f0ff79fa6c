"""Show in django-debug-toolbar what a request has sent, to which receivers, and whether it was committed.

List ``signalbus.telemetry.debug_toolbar_panel.SignalbusPanel`` in ``DEBUG_TOOLBAR_PANELS``.
"""

from __future__ import annotations

from contextlib import nullcontext
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from debug_toolbar.panels import Panel
from django.utils.translation import gettext_lazy, ngettext

from signalbus.events import listen
from signalbus.tracing import add_tracer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from django.http import HttpRequest, HttpResponse

    from signalbus.context import CurrentDelivery
    from signalbus.events import Event
    from signalbus.tracing import Creation
    from signalbus.wire.message import Message

# What the request of this thread or task has sent, by the message's id; None where the toolbar looks at no request.
_sent: ContextVar[dict[str, dict[str, Any]] | None] = ContextVar("signalbus_sent", default=None)


class RequestRecorder:
    """Notes what is sent while the toolbar looks at a request; a tracer that sends no headers along."""

    def create(self, made: Creation) -> Mapping[str, str]:
        """Note a message."""
        sent = _sent.get()
        if sent is not None:
            receivers = [each for ids in made.routes.values() for each in ids or ()]
            sent[str(made.id)] = {
                "id": str(made.id),
                "signal": made.signal,
                "receivers": receivers,
                "bytes": made.size,
                "is_committed": False,
            }
        return {}

    def publish(self, queue: str, sent: Sequence[Mapping[str, str]]) -> AbstractContextManager[object]:  # noqa: ARG002 - of all tracers
        """Do nothing."""
        return nullcontext()

    def process(self, delivery: CurrentDelivery, message: Message) -> AbstractContextManager[object]:  # noqa: ARG002 - as above
        """Do nothing."""
        return nullcontext()

    def note_commit(self, event: Event) -> None:
        """Note that the transaction of a message was committed; a listener of "sent"."""
        found = (_sent.get() or {}).get(str(event.delivery.message_id))
        if found is not None:
            found["is_committed"] = True


@cache
def _switch_on() -> None:
    """Note what is sent from now on: once in a process, for all requests."""
    recorder = RequestRecorder()
    add_tracer(recorder)
    listen("sent")(recorder.note_commit)


class SignalbusPanel(Panel):
    """What this request has sent."""

    title: Any = gettext_lazy("Signals sent")
    template: str = "signalbus/debug_toolbar_panel.html"
    is_async: bool = True

    @property
    def nav_subtitle(self) -> str:
        """The number of messages."""
        stats: dict[str, Any] = self.get_stats()  # type: ignore[no-untyped-call]  # the toolbar has types only in part
        count = len(stats.get("messages", ()))
        return ngettext("%(count)d message", "%(count)d messages", count) % {"count": count}

    def enable_instrumentation(self) -> None:
        """Begin to note what is sent."""
        _switch_on()
        _sent.set({})

    def disable_instrumentation(self) -> None:
        """End to note what is sent."""
        _sent.set(None)

    def generate_stats(self, request: HttpRequest, response: HttpResponse) -> None:  # noqa: ARG002 - as the toolbar calls it
        """Keep what was sent, for the page."""
        self.record_stats({"messages": list((_sent.get() or {}).values())})  # type: ignore[no-untyped-call]  # as above

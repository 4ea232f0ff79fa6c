"""Format the values of a page: names, times and links, escaped, without characters that would repaint the page."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, State
from signalbus.pages.shown_text import NAME_CHARS, duration, lines_of, receiver_of, short, signal_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from django.utils.safestring import SafeString

    from signalbus.ledger.operations import Paused

ERROR_CHARS: Final = 300  # of what a page tells of a wrong input
NONE: Final = "-"
__all__ = [
    "ERROR_CHARS", "NAME_CHARS", "NONE", "age_of_row", "block", "link_to", "pause_banner", "receiver_of", "rendered",
    "row_of_delivery", "short", "signal_of", "state_of", "table_of_deliveries", "time_of_row",
]  # fmt: skip


def block(text: str) -> SafeString:
    """Return a text of several lines as an element that keeps them.

    Args:
        text: any text, as a traceback; at most 20,000 characters of it are shown.
    """
    return format_html('<pre class="signalbus-text">{}</pre>', lines_of(text))


def time_of_row(moment: datetime | None) -> SafeString | str:
    """Return a time of the ledger in the reader's time zone; a dash for none.

    Args:
        moment: as Django read it from a column.
    """
    if moment is None:
        return NONE
    utc = ledger.in_utc(moment, ledger.using())
    return _time_element(utc, timezone.localtime(utc).strftime("%Y-%m-%d %H:%M:%S"))


def age_of_row(moment: datetime | None) -> SafeString | str:
    """Return how long ago a time of the ledger is, by this process' clock; in how long, if it is not over.

    Args:
        moment: as Django read it from a column.
    """
    if moment is None:
        return NONE
    utc = ledger.in_utc(moment, ledger.using())
    seconds = (datetime.now(UTC) - utc).total_seconds()
    return _time_element(utc, f"in {duration(-seconds)}" if seconds <= -1 else duration(seconds))


def _time_element(utc: datetime, shown: str) -> SafeString:
    title = utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    return format_html('<time datetime="{}" title="{}">{}</time>', utc.isoformat(), title, shown)


def state_of(delivery: Delivery) -> SafeString:
    """Return the state of a delivery as an element; what it means is its title."""
    state = State(delivery.state)
    return format_html('<span class="signalbus-{}" title="{}">{}</span>', state.value, state.facts.means, state.value)


def link_to(page: str, pk: UUID, shown: str, *, site: str) -> SafeString:
    """Return a link to the page of a row.

    Args:
        page: the model, as it stands in the names of URLs: "delivery" or "storedmessage".
        pk: the row.
        shown: the link's text.
        site: the name of the admin site.
    """
    url = reverse(f"admin:signalbus_{page}_change", args=(pk,), current_app=site)
    return format_html('<a href="{}">{}</a>', url, shown)


def pause_banner(pause: Paused, *, site: str) -> dict[str, Any]:
    """Return what a banner shows of a pause.

    Args:
        pause: the pause.
        site: the name of the admin site.
    """
    deliveries = reverse("admin:signalbus_delivery_changelist", current_app=site)
    resume = reverse("admin:signalbus_resume", current_app=site)
    words = pause.name if pause.kind == "filter" else shlex.quote(f"{pause.kind}:{pause.name}")
    return {
        "what": short(f"{pause.kind} {pause.name}"), "by": short(pause.by) or "somebody", "reason": short(pause.reason),
        "since": time_of_row(pause.since), "until": None if pause.until is None else time_of_row(pause.until),
        "is_resumed": pause.resumed_at is not None,
        "held_url": f"{deliveries}?{urlencode({'q': words, 'state': State.HELD.value})}",
        "resume_url": f"{resume}?{urlencode({'kind': pause.kind, 'name': pause.name})}",
    }  # fmt: skip


def rendered(template: str, **context: Any) -> str:
    """Return a template of ours with its context.

    Args:
        template: its name in `signalbus/admin/`.
        context: what it shows.
    """
    return render_to_string(f"signalbus/admin/{template}", context)


def row_of_delivery(delivery: Delivery, *, site: str) -> dict[str, Any]:
    """Return what a table of deliveries shows of one.

    Args:
        delivery: the delivery.
        site: the name of the admin site.
    """
    return {
        "link": link_to("delivery", delivery.pk, receiver_of(delivery), site=site),
        "state": state_of(delivery),
        "attempts": delivery.attempts,
        "ended": age_of_row(delivery.ended_at),
        "error": short(delivery.error),
    }


def table_of_deliveries(deliveries: Iterable[Delivery], *, site: str) -> str:
    """Return a table of deliveries.

    Args:
        deliveries: the deliveries.
        site: the name of the admin site.
    """
    return rendered("deliveries.html", rows=[row_of_delivery(each, site=site) for each in deliveries])

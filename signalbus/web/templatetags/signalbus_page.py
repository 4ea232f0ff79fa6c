"""Tags and filters of the web app's templates: texts, times, states, icons and addresses, all of them escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django import template
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from signalbus.ledger import operations as ledger
from signalbus.models import State
from signalbus.pages import shown_text
from signalbus.pages.open_counts import Capped
from signalbus.web import alert_texts, doctor_texts

if TYPE_CHECKING:
    from django.template import Context

register: template.Library = template.Library()
register.filter(alert_texts.alert_title)
register.filter(alert_texts.alert_text)
register.filter(doctor_texts.doctor_text)
ICONS: Final = frozenset(
    {
        "alert", "dead", "discarded", "done", "failed", "held", "ok", "parked", "pending", "person", "published",
        "running", "sent", "skipped",
    }
)  # fmt: skip
ALARMING: Final = {State.DEAD: "c-bad", State.HELD: "c-warn", State.PARKED: "c-warn", State.RUNNING: "c-acc"}
MINUTE: Final = 60
LINK_CHARS: Final = 1000  # of a parameter: a longer name leads to nothing


@register.filter
def short(text: Any) -> str:
    """Return a text for a list: on one line, at most 120 characters."""
    return shown_text.short(str(text))


@register.filter
def block(text: Any) -> str:
    """Return a text of several lines, made harmless."""
    return shown_text.lines_of(str(text))


@register.filter
def breakable(name: Any) -> SafeString:
    """Return a name that a narrow column may break after its dots."""
    parts = shown_text.short(str(name)).split(".")
    return format_html_join(SafeString(".<wbr>"), "{}", ((part,) for part in parts))


@register.filter
def number(value: Any) -> str:
    """Return a whole number with separators of thousands; of a capped one with a plus."""
    if isinstance(value, Capped):
        return f"{number(value.number)}{'+' if value.is_capped else ''}"
    return number_format(value or 0, 0, use_l10n=True, force_grouping=True)


@register.filter
def milliseconds(value: float | None) -> str:
    """Return milliseconds as people read them: "12 ms", "1.2 s"."""
    if value is None:
        return ""
    return f"{value:,.0f} ms" if value < 1000 else f"{value / 1000:,.1f} s"  # noqa: PLR2004 - a second


@register.filter
def seconds(value: float | None) -> str:
    """Return seconds as people read them: "12 ms", "1.2 s", "9:12"."""
    if value is None:
        return ""
    if value < MINUTE:
        return milliseconds(value * 1000)
    return _("over 10 min") if value == float("inf") else clock(value)


@register.filter
def clock(value: float) -> str:
    """Return a duration as minutes and seconds, from an hour on with hours, from a day on with days."""
    whole = max(0, int(value))
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // MINUTE % MINUTE, whole % MINUTE
    if days:
        return f"{days} d {hours} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@register.filter
def age(moment: datetime | None) -> str:
    """Return how long ago a time of the ledger was, in its largest unit; in how long, if it is to come."""
    if moment is None:
        return ""
    passed = (datetime.now(UTC) - _utc(moment)).total_seconds()
    if passed <= -1:
        return _("in %(time)s") % {"time": shown_text.duration(-passed)}
    return _("%(time)s ago") % {"time": shown_text.duration(passed)}


@register.filter
def when(moment: datetime | None, precision: str = "s") -> SafeString | str:
    """Return a time of the ledger as an element, in UTC: of today the time, else with the date.

    Args:
        moment: the time, as Django read it from a column, or in UTC.
        precision: "s", "ms" for milliseconds, or "day" to name the date always.
    """
    if moment is None:
        return ""
    utc = _utc(moment)
    shown = utc.strftime("%H:%M:%S")
    if precision == "ms":
        shown += f".{utc.microsecond // 1000:03}"
    if precision == "day" or utc.date() != datetime.now(UTC).date():
        shown = f"{utc:%Y-%m-%d} {shown}"
    title = f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time datetime="{}" title="{}">{}</time>', utc.isoformat(), title, shown)


@register.filter
def hour(moment: datetime) -> str:
    """Return the hour and minute of a time in UTC, for an axis."""
    return f"{moment:%H:%M}"


@register.filter
def day(moment: datetime) -> str:
    """Return the month and day of a time in UTC, for an axis."""
    return f"{moment:%m-%d}"


@register.filter
def plain_state(state: str) -> SafeString:
    """Return a state as a word with its icon."""
    known = State(state)
    shape, tone = (known.value, ALARMING.get(known, "muted"))
    return format_html('<span class="st {}" title="{}">{}{}</span>', tone, known.facts.means, icon(shape), known.value)


@register.simple_tag
def icon(name: str, tone: str = "") -> SafeString:
    """Return an icon of the page's sprite; the words beside it say what it means."""
    shape = name if name in ICONS else "alert"
    return format_html(
        '<svg class="icon {}" viewBox="0 0 16 16" aria-hidden="true"><use href="#i-{}"/></svg>', tone, shape
    )


@register.simple_tag(takes_context=True)
def address(context: Context, name: str, *args: Any, **parameters: Any) -> str:
    """Return the address of a page under this mount; parameters that are empty are left out.

    Args:
        context: of the template.
        name: the page.
        args: its parts.
        parameters: of the query.
    """
    url = reverse(f"{context['mount']}:{name}", args=args)
    given = {key: str(value)[:LINK_CHARS] for key, value in parameters.items() if value not in {None, ""}}
    return f"{url}?{urlencode(given)}" if given else url


@register.filter
def get(spans: dict[str, Any], key: str) -> str:
    """Return the length of a span of time in words."""
    return str(spans[key].text)


@register.filter
def word(value: Any, key: str) -> str:
    """Return a word of a filter, quoted if it has spaces: `receiver` and a name give `receiver:name`."""
    text = f"{key}:{value}"
    return f"'{text}'" if any(char.isspace() for char in text) and "'" not in text else text


@register.filter
def receiver_name(delivery: Any) -> SafeString:
    """Return the receiver of a delivery for people."""
    return breakable(shown_text.receiver_of(delivery))


@register.filter
def signal_name(name: str) -> SafeString:
    """Return a signal's name for people."""
    return breakable(shown_text.signal_of(name))


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else ledger.in_utc(moment, ledger.using())

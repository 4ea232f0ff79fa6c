"""Render a page: its template, with what each page shows around it.

These are the navigation with what needs attention, the pauses that are in force, the theme, and the user's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.translation import get_language_bidi
from django.utils.translation import gettext_lazy as _

from signalbus.ledger import operations as ledger
from signalbus.models import Alert, Operation, Pause
from signalbus.services.actors import OPERATE

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.utils.functional import Promise

    from signalbus.services.actors import Actor

APP: Final = "signalbus_web"  # of the URLs' names
THEMES: Final = ("auto", "light", "dark")
THEME_COOKIE: Final = "signalbus_theme"
BANDS: Final = 10  # pauses that a page names
ALERTS: Final = 200  # that are counted
# Section, name of its URL, title.
SECTIONS: Final[tuple[tuple[Promise | str, tuple[tuple[str, Promise | str], ...]], ...]] = (
    (
        _("See"),
        (
            ("overview", _("Overview")), ("failures", _("Failures")), ("deliveries", _("Deliveries")),
            ("signals", _("Signals")), ("graph", _("Graph")), ("workers", _("Workers")),
        ),
    ),
    (_("Steer"), (("operations", _("Operations")), ("queues", _("Queues, pauses")), ("activity", _("Activity")))),
    (_("Check"), (("doctor", _("Doctor")),)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NavigationItem:
    """A link of the navigation.

    Args:
        name: of its URL.
        title: what it is called.
        badge: how many things there need attention; 0 for none.
        tone: the class of the badge's colour.
        is_current: whether this page belongs to it.
    """

    name: str
    title: Any
    badge: int
    tone: str
    is_current: bool


def mount_of(request: HttpRequest) -> str:
    """Return the namespace of the URLs under which this request came: a project may mount the app where it likes."""
    match = request.resolver_match
    return match.namespace if match is not None and match.namespace else APP


def url_of(request: HttpRequest, name: str, *args: Any) -> str:
    """Return the address of a page of ours, under the same mount as this request.

    Args:
        request: the request.
        name: the page, "delivery" for example.
        args: its parts, as the id of a row.
    """
    return reverse(f"{mount_of(request)}:{name}", args=args)


def theme_of(request: HttpRequest) -> str:
    """Return the theme that the user has chosen, "auto" for none."""
    theme = request.COOKIES.get(THEME_COOKIE, "")
    return theme if theme in THEMES else "auto"


def render_page(  # noqa: PLR0913 - what a page consists of
    request: HttpRequest,
    actor: Actor,
    template: str,
    section: str,
    context: dict[str, Any] | None = None,
    *,
    status: int = 200,
) -> HttpResponse:
    """Render a page.

    Args:
        request: the request.
        actor: who looks at it.
        template: its template in `signalbus_web/`.
        section: the name of the URL in the navigation that it belongs to.
        context: what the template shows.
        status: of the answer.
    """
    alias = ledger.using()
    alerts = list(Alert.objects.using(alias).filter(cleared_at=None).order_by("-raised_at")[:ALERTS])
    pauses = list(Pause.objects.using(alias).filter(resumed_at=None).order_by("since", "id")[: BANDS + 1])
    unended = Operation.objects.using(alias).filter(ended_at=None).values_list("pk", flat=True)[:BANDS]
    kinds = [alert.kind for alert in alerts]
    badges = {
        "failures": (kinds.count("dead"), "c-bad"),
        "workers": (len(kinds) - kinds.count("dead") - kinds.count("parked"), "c-bad"),
        "queues": (len(pauses), "c-warn"),
        "operations": (len(unended), "c-acc"),
    }
    shared = {
        "mount": mount_of(request),
        "sections": [
            (title, [NavigationItem(name, text, *badges.get(name, (0, "")), name == section) for name, text in items])
            for title, items in SECTIONS
        ],
        "alerts": alerts, "pauses": pauses[:BANDS], "has_more_pauses": len(pauses) > BANDS,
        "theme": theme_of(request), "themes": THEMES, "here": request.get_full_path(),
        "direction": "rtl" if get_language_bidi() else "ltr",
        "can_operate": actor.allows is None or actor.allows(OPERATE), "actor": actor, "now": datetime.now(UTC),
        "admin_url": _admin_url(request), "every": 0,
    }  # fmt: skip
    return render(request, f"signalbus_web/{template}", {**shared, **(context or {})}, status=status)


def _admin_url(request: HttpRequest) -> str:
    """Return the address of the admin, for a user who may enter it; empty if there is none."""
    if not getattr(request.user, "is_staff", False):
        return ""
    try:
        return reverse("admin:index")
    except NoReverseMatch:
        return ""

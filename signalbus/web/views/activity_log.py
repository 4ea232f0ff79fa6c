"""Activity: who changed what, when, and why?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from signalbus.services.audit_log import read_log
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor

LINES: Final = 200  # of a page
MOST_CHARS: Final = 150  # of a name
HIDDEN: Final = ("ids",)  # of what was changed: too long for a line


@page()
def activity_log(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the youngest lines of the audit log, of one person or of one kind if the address asks for it."""
    by, kind = (request.GET.get(name, "")[:MOST_CHARS].strip().replace("\x00", "") for name in ("by", "kind"))
    lines = read_log(actor, LINES + 1, kind=kind or None, by=by or None)
    rows = [
        {
            "entry": line,
            "target": ", ".join(f"{key}:{value}" for key, value in line.filter.items() if key not in HIDDEN),
            "numbers": ", ".join(f"{value} {key}" for key, value in line.counts.items()),
        }
        for line in lines[:LINES]
    ]
    kinds = ("retry", "discard", "pause", "resume", "cancel", "purge", "reveal")
    context = {"rows": rows, "has_more": len(lines) > LINES, "by": by, "kind": kind, "kinds": kinds, "most": LINES}
    return render_page(request, actor, "activity_log.html", "activity", context)

"""Activity: who changed what, when, and why?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from signalbus.ledger import operations as ledger
from signalbus.ledger.history import KINDS as KINDS_OF_NOTES
from signalbus.services.audit_log import read_log
from signalbus.web.file_export import file_of, format_of
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.ledger.operations import LogEntry
    from signalbus.services.actors import Actor

LINES: Final = 200  # of a page
EXPORTED: Final = 1000  # of a file
DIGITS: Final = 19  # of a number that is too large for the column
COLUMNS: Final = ("id", "at", "by", "through", "kind", "state", "target", "numbers", "rate", "reason")
MOST_CHARS: Final = 150  # of a name
KINDS: Final = (*ledger.CHANGED, "pause", "resume", "cancel", "purge", "reveal", *KINDS_OF_NOTES)  # to choose from
HIDDEN: Final = ("ids",)  # of what was changed: too long for a line


@page()
def activity_log(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the audit log page by page, of one person or of one kind if the address asks for it."""
    by, kind = (request.GET.get(name, "")[:MOST_CHARS].strip().replace("\x00", "") for name in ("by", "kind"))
    asked, file = {"by": by, "kind": kind}, format_of(request)
    before = _number(request.GET.get("before", ""))
    lines = read_log(actor, EXPORTED if file else LINES + 1, kind=kind or None, by=by or None, before=before)
    if file:
        return file_of("activity", file, COLUMNS, map(_row, lines))
    rows = [
        {"entry": line, "is_bulk": line.kind in ledger.CHANGED and "stage" in line.details, **_texts(line)}
        for line in lines[:LINES]
    ]
    older = urlencode({**asked, "before": lines[LINES - 1].id}) if len(lines) > LINES else ""
    context = {
        "rows": rows, "older": older, "is_first": before is None, "newest": urlencode(asked), "by": by, "kind": kind,
        "kinds": KINDS,
    }  # fmt: skip
    return render_page(request, actor, "activity_log.html", "activity", context)


def _number(text: str) -> int | None:
    """Return the number of a line; None if the text is none, or of one that no database has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < DIGITS else None


def _texts(line: LogEntry) -> dict[str, str]:
    return {
        "target": ", ".join(f"{key}:{value}" for key, value in line.filter.items() if key not in HIDDEN),
        "numbers": ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in line.counts.items()),
    }


def _row(line: LogEntry) -> dict[str, Any]:
    """Return a line as a row of a file."""
    return {
        "id": line.id, "at": line.at.isoformat(), "by": line.by, "through": line.through, "kind": line.kind,
        "state": line.state, "reason": line.reason, "rate": line.rate, **_texts(line),
    }  # fmt: skip

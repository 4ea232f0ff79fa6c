"""Doctor and settings: which precondition of a promise is broken, and what is the remedy?"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from signalbus import conf
from signalbus.doctor.examination import examine
from signalbus.pages.shown_text import short
from signalbus.services.redaction import HIDDEN, is_secret
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor

ORDER: Final = ("problem", "warning", "ok")


@page(is_bounded=False)  # the doctor asks the broker too, with timeouts of its own
def doctor_report(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Examine the preconditions, and show the settings, with secrets hidden."""
    found = sorted(examine(), key=lambda finding: ORDER.index(finding.level))
    levels = [finding.level for finding in found]
    context = {
        "findings": found, "problems": levels.count("problem"), "warnings": levels.count("warning"),
        "fine": levels.count("ok"), "settings": list(_settings()),
    }  # fmt: skip
    return render_page(request, actor, "doctor_report.html", "doctor", context)


def _settings() -> list[tuple[str, str, bool]]:
    """Return the settings of SIGNALBUS, and whether each is set to another value than its default."""
    config = conf.get()
    return [
        (field.name, _shown(field.name, getattr(config, field.name)), getattr(config, field.name) != field.default)
        for field in fields(config)
    ]


def _shown(name: str, value: Any) -> str:
    text = repr(value)
    is_hidden = value is not None and (is_secret(name) or "://" in text)  # an address may hold a token
    return HIDDEN if is_hidden else short(text)

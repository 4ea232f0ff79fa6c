"""Operations in bulk: which ones are there, how far has each come, and what failed again?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.http import HttpResponseRedirect
from django.utils.translation import gettext as _

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, State
from signalbus.pages.shown_text import short
from signalbus.services.actors import OPERATE
from signalbus.services.changes import bulk_operations
from signalbus.services.changes.bulk_operations import CHANGES, UnknownOperation
from signalbus.web.file_export import file_of, format_of, iso
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page, url_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.ledger.operations import BulkOperation
    from signalbus.services.actors import Actor

LISTED: Final = 100
EXPORTED: Final = 1000  # of a file
COLUMNS: Final = (
    "id", "kind", "state", "asked_for", "started", "ended", "found", "changed", "done", "failed_again", "left_alone",
    "filter", "rate", "by", "through", "reason",
)  # fmt: skip
FAILED: Final = 20  # deliveries that failed again
REASON_CHARS: Final = 500
STAGES: Final = ("first", "ten", "rest")
# By state, the changes that can be made to an operation.
STEERED: Final = {"waiting": ("pause", "cancel"), "running": ("pause", "cancel"), "paused": ("resume", "cancel")}


@page()
def operation_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the operations that have not ended, and the youngest that have."""
    kind = format_of(request)
    found = bulk_operations.operations(actor, EXPORTED if kind else LISTED)
    if kind:
        return file_of("operations", kind, COLUMNS, map(_row, found))
    context = {
        "operations": [(each, bulk_operations.progress_of(each)) for each in found],
        "every": 5 if any(not each.is_over for each in found) else 15,
    }  # fmt: skip
    return render_page(request, actor, "operation_list.html", "operations", context)


def _row(found: BulkOperation) -> dict[str, Any]:
    """Return an operation as a row of a file."""
    times = (found.created_at, found.started_at, found.ended_at)
    numbers = (found.found, found.changed, found.done, found.failed_again, found.left_alone)
    texts = (" ".join(found.words), found.rate, found.by, found.through, found.reason)
    return dict(zip(COLUMNS, (found.id, found.kind, found.state, *map(iso, times), *numbers, *texts), strict=True))


@page()
def operation_progress(request: HttpRequest, actor: Actor, number: int) -> HttpResponse:
    """Show how far an operation has come."""
    return _show(request, actor, number)


@page(permission=OPERATE, methods=("POST",))
def steer_operation(request: HttpRequest, actor: Actor, number: int) -> HttpResponse:
    """Pause, resume or cancel an operation."""
    change = next((each for each in CHANGES if each == request.POST.get("change", "")), None)
    if change is None:
        return _show(request, actor, number, _("Say what is to be done."))
    reason = request.POST.get("reason", "")[:REASON_CHARS].strip()
    try:
        bulk_operations.change_operation(change, number, actor=actor, reason=reason)
    except ConfigurationError as error:
        return _show(request, actor, number, short(str(error)))
    return HttpResponseRedirect(url_of(request, "operation", number))


def _show(request: HttpRequest, actor: Actor, number: int, problem: str = "") -> HttpResponse:
    try:
        found = bulk_operations.operation(actor, number)
    except UnknownOperation:
        return render_page(request, actor, "operation_gone.html", "operations", {"number": number}, status=404)
    failing = bulk_operations.failed_again(actor, number, FAILED + 1)
    context = {
        "operation": found, "progress": bulk_operations.progress_of(found), "failing": failing[:FAILED],
        "more_failing": len(failing) > FAILED, "problem": problem, "every": 0 if found.is_over or problem else 2,
        "changes": STEERED.get(found.state, ()), "parts": _parts(found), "steps": _steps(found),
        "words": " ".join(found.words) or "all that has failed", "is_held": _is_held(found),
    }  # fmt: skip
    return render_page(request, actor, "operation_progress.html", "operations", context, status=400 if problem else 200)


def _is_held(found: BulkOperation) -> bool:
    """Return whether an operation waits for deliveries that a gate holds, as by a pause."""
    if found.is_over or not found.trial:
        return False
    return Delivery.objects.using(ledger.using()).filter(id__in=found.trial, state=State.HELD).exists()


def _parts(found: BulkOperation) -> list[dict[str, Any]]:
    """Return the parts of the bar: what is done, failed again, waits and was left alone, in per cent."""
    total, x = max(1, found.found or 0), 0.0
    parts = []
    for tone, number in (
        ("f-ok", found.done), ("f-bad", found.failed_again), ("f-acc", found.waiting), ("f-warn", found.left_alone)
    ):  # fmt: skip
        if number:
            width = min(100 - x, max(1.0, 100 * number / total))
            parts.append({"tone": tone, "x": f"{x:.2f}%", "width": f"{width:.2f}%"})
            x += width
    return parts


def _steps(found: BulkOperation) -> list[tuple[int, str]]:
    """Return the steps of a retry with their sizes, and whether each is over, current or to come."""
    if found.kind != "retry" or found.found is None:
        return []
    sizes = (min(1, found.found), min(10, max(0, found.found - 1)), max(0, found.found - 11))
    # The stage is the next step as soon as the deliveries of the one before are due; they have not ended before the
    # trial is over.
    at = (STAGES.index(found.stage) if found.stage in STAGES else len(STAGES)) - bool(found.trial)
    names = ["over" if number < at else "now" if number == at else "later" for number in range(len(STAGES))]
    return [(size, name) for size, name in zip(sizes, names, strict=True) if size]

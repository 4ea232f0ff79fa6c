"""One delivery: why did it fail, who changed it, what does it carry, and what belongs to it?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.db import transaction
from django.utils.translation import gettext as _

from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.models import Operation, State
from signalbus.pages.replay_test import replay_test
from signalbus.pages.shown_text import TEXT_CHARS
from signalbus.registration.registry import registry
from signalbus.services.actors import OPERATE, VIEW_PAYLOAD
from signalbus.services.changes.rehearsal import LASTING, PATIENCE, rehearse_beside_others
from signalbus.services.queries.lookup import SCANNED, cascade_of, message_of
from signalbus.services.redaction import HIDDEN, context_of, origin_of, payload_of, reveal_payload
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse

    from signalbus.models import Delivery
    from signalbus.services.actors import Actor
    from signalbus.services.queries.lookup import FoundMessage

NEAR: Final = 20_000  # messages after the root in which a cascade is looked for at first
SIBLINGS: Final = 100
VALUES: Final = 300  # of a payload
LINES: Final = 200  # of each kind that a rehearsal reports
PEOPLE: Final = 50  # operations that are looked at
REASON_CHARS: Final = 500
ORDER: Final = ("lost", "failed", "person", "end")  # of steps within a millisecond


@dataclass(slots=True)
class Step:
    """A step of a delivery's life.

    Args:
        at: when.
        kind: sent, failed, lost, person, end, held or due.
        icon: its picture.
        tone: the class of the picture's colour.
        row: what the ledger knows about it.
    """

    at: datetime
    kind: str
    icon: str
    tone: str = "muted"
    row: Any = None


@dataclass(slots=True)
class Node:
    """A message of a cascade.

    Args:
        found: the message.
        is_current: whether the page is about one of its deliveries.
        children: the messages that its receivers sent.
    """

    found: FoundMessage
    is_current: bool
    children: list[Node] = field(default_factory=list)


@page()
def delivery_detail(request: HttpRequest, actor: Actor, pk: UUID) -> HttpResponse:
    """Show a delivery with its timeline, its payload with secrets hidden, its siblings and its cascade."""
    return _show(request, actor, pk)


@page(permission=VIEW_PAYLOAD, methods=("POST",))
def reveal(request: HttpRequest, actor: Actor, pk: UUID) -> HttpResponse:
    """Show a delivery with the secrets of its payload; the reason is written to the audit log first."""
    reason = request.POST.get("reason", "")[:REASON_CHARS].strip()
    if not reason:
        return _show(request, actor, pk, problem=_("Nothing was revealed: give a reason."))
    found = message_of(pk)
    payload = None if found is None else reveal_payload(found.message, pk, actor=actor, reason=reason)
    return _show(request, actor, pk, revealed=payload)


@page(permission=OPERATE, methods=("POST",))
@transaction.non_atomic_requests  # the rehearsal has connections of its own
def rehearsal(request: HttpRequest, actor: Actor, pk: UUID) -> HttpResponse:
    """Run the receiver of a delivery, roll everything back, and show what it would have done."""
    found, delivery = _find(pk)
    if found is None or delivery is None:
        return _gone(request, actor, pk)
    try:
        result = rehearse_beside_others(found, delivery, actor=actor)
    except ConfigurationError as error:
        return _show(request, actor, pk, problem=str(error))
    kinds = () if result is None else (
        (_("Rows that it would save or delete"), result.changes), (_("Signals that it would send"), result.messages),
        (_("Mail that it would send"), result.mails), (_("Functions left with on_commit"), result.callbacks),
        (_("Connections that were blocked"), result.sockets), (_("Statements"), result.statements),
    )  # fmt: skip
    context = {
        "delivery": delivery, "result": result, "patience": PATIENCE, "lasting": LASTING,
        "kinds": [(title, lines[:LINES], max(0, len(lines) - LINES)) for title, lines in kinds if lines],
    }  # fmt: skip
    return render_page(request, actor, "rehearsal.html", "deliveries", context)


def _show(
    request: HttpRequest, actor: Actor, pk: UUID, *, problem: str = "", revealed: dict[str, Any] | None = None
) -> HttpResponse:
    found, delivery = _find(pk)
    if found is None or delivery is None:
        return _gone(request, actor, pk)
    may_read = actor.allows is None or actor.allows(VIEW_PAYLOAD)
    payload = revealed or (payload_of(found.message) if may_read else None)
    values = list(_flat("", payload["values"])) if payload is not None else []
    looks_far = "far" in request.GET
    cascade = cascade_of(found, scanned=SCANNED if looks_far else NEAR)
    state = State(delivery.state)
    context = {
        "delivery": delivery, "found": found, "state": state, "steps": _steps(delivery, found),
        "entry": _entry(delivery, found), "behind": ledger.behind(delivery) if state == State.DEAD else 0,
        "may_read": may_read, "payload": payload, "values": values[:VALUES],
        "more_values": max(0, len(values) - VALUES),
        "hidden": sum(HIDDEN in value for _path, value, _is_hidden in values), "is_revealed": revealed is not None,
        "siblings": [row for row in found.deliveries if row.pk != delivery.pk][:SIBLINGS],
        "tree": [_node(cascade.root, found)] if cascade.root.children or not cascade.is_whole else [],
        "origin": list(_flat("", origin_of(found.message))), "carried": list(_flat("", context_of(found.message))),
        "is_whole": cascade.is_whole,
        "looks_far": looks_far, "problem": problem, "every": 5 if state.facts.is_open and not revealed else 0,
        "replay": _replay(delivery, found) if payload is not None else "",
        "can_change": state not in {State.DONE, State.RUNNING}, "is_waiting": state in {State.PENDING, State.PARKED},
        "can_rehearse": may_read and found.message is not None and bool(delivery.receiver),
        "reason_chars": REASON_CHARS,
    }  # fmt: skip
    return render_page(request, actor, "delivery_detail.html", "deliveries", context)


def _replay(delivery: Delivery, found: FoundMessage) -> str:
    """Return a test that replays the delivery; none for a payload of a version that is not known here."""
    try:
        return "" if found.message is None else replay_test(found.message, delivery)
    except (ValueError, TypeError, AttributeError, IndexError):  # as in `payload_of`
        return ""


def _find(pk: UUID) -> tuple[FoundMessage | None, Delivery | None]:
    found = message_of(pk)
    return found, None if found is None else next((row for row in found.deliveries if row.pk == pk), None)


def _gone(request: HttpRequest, actor: Actor, pk: UUID) -> HttpResponse:
    return render_page(request, actor, "delivery_gone.html", "deliveries", {"pk": pk}, status=404)


def _entry(delivery: Delivery, found: FoundMessage) -> Any:
    """Return the receiver as this process knows it; None if it does not."""
    if found.message is None or not delivery.receiver:
        return None
    signal = registry.signal(found.message.signal)
    return None if signal is None else signal.find(delivery.receiver, found.message.sender)


def _steps(delivery: Delivery, found: FoundMessage) -> list[Step]:
    """Return what happened to a delivery, by machines and by people, the oldest first."""
    attempts = found.attempts.get(delivery.pk, [])
    steps = [
        Step(attempt.ended_at, "lost" if attempt.was_lost else "failed", "failed", "c-bad", attempt)
        for attempt in attempts
    ]
    steps += [Step(row.created_at, "person", "person", "c-acc", row) for row in _changes_by_people(delivery)]
    state, last = State(delivery.state), []
    if delivery.ended_at is not None:
        tone = {State.DEAD: "c-bad", State.DONE: "c-ok"}.get(state, "muted")
        # The last attempt may have been written a moment after the end that it led to.
        ended_at = max((delivery.ended_at, *(attempt.ended_at for attempt in attempts)))
        steps.append(Step(ended_at, "end", state.value, tone))
    elif state == State.HELD:
        last.append(Step(delivery.due_at, "held", "held", "c-warn", ledger.waits_for_release(delivery)))
    else:
        last.append(Step(delivery.due_at, "due", state.value))
    return [Step(delivery.created_at, "sent", "sent"), *sorted(steps, key=_place), *last]


def _place(step: Step) -> tuple[datetime, int, int]:
    """Return the place of a step; within a millisecond what comes first by its nature, whoever's clock it has."""
    at = step.at.replace(microsecond=step.at.microsecond // 1000 * 1000)
    return at, ORDER.index(step.kind), step.row.number if step.kind in {"failed", "lost"} else 0


def _changes_by_people(delivery: Delivery) -> Iterator[Operation]:
    """Yield the operations that named a delivery; those by a filter name none, if they took many."""
    alias = ledger.using()
    rows = Operation.objects.using(alias).filter(
        created_at__gte=delivery.created_at, kind__in=("retry", "discard", "reveal")
    )
    youngest = rows.order_by("-created_at")[:PEOPLE]
    wanted = str(delivery.pk)
    for row in youngest:
        named = row.filter.get("ids", ()) if isinstance(row.filter, dict) else ()
        if wanted in named or (isinstance(row.filter, dict) and row.filter.get("delivery") == wanted):
            yield row


def _flat(path: str, node: Any) -> Iterator[tuple[str, str, bool]]:
    """Yield the values of a payload with their paths, and whether each is hidden."""
    if isinstance(node, dict) and node:
        for key, inner in node.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(node, list) and node:
        for number, inner in enumerate(node):
            yield from _flat(f"{path}[{number}]", inner)
    elif path:
        yield path, str(node)[:TEXT_CHARS], node == HIDDEN


def _node(found: FoundMessage, current: FoundMessage) -> Node:
    return Node(found, found.row.pk == current.row.pk, [_node(each, current) for each in found.children])

"""Write signals, messages and deliveries as lines and as objects, for ``list``, ``explain``, ``show`` and the like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from signalbus.ledger import operations as ledger
from signalbus.management.text import iso, one_line, time_of
from signalbus.models import State
from signalbus.services.redaction import context_of, origin_of, payload_of
from signalbus.wire.subjects import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalbus.models import Delivery, FailedAttempt, RunningDelivery
    from signalbus.services.queries.explanation import Explanation
    from signalbus.services.queries.lookup import FoundMessage

SCHEMA = 1  # of the objects; it changes when a reader would have to
INDENT = "    "


def explanation_lines(found: Explanation) -> Iterator[str]:
    """Yield the lines of ``explain``.

    Args:
        found: the explanation of a signal.
    """
    yield f"{found.signal}  {found.place}"
    for fact in found.facts:
        yield f"{INDENT}{fact}"
    for each in sorted(found.receivers, key=lambda each: not each.reached):
        yield f"{'->' if each.reached else 'no'}  {each.id}  from {each.sender or 'any sender'}  in {each.queue}"
        yield f"{INDENT}{each.place}; {each.policy}"
        if each.why:
            yield f"{INDENT}not reached: it {each.why}"
    if found.inline:
        yield f"{found.inline} more run in the sender's process."
    if not found.reached:
        yield "No receiver in a worker is reached."


def explanation_object(found: Explanation) -> dict[str, Any]:
    """Return ``explain`` for programs.

    Args:
        found: the explanation of a signal.
    """
    return {
        "signal": found.signal,
        "place": found.place,
        "facts": list(found.facts),
        "inline": found.inline,
        "receivers": [
            {
                "id": each.id,
                "place": each.place,
                "sender": each.sender,
                "queue": each.queue,
                "policy": each.policy,
                "reached": each.reached,
                "why": each.why,
            }
            for each in found.receivers
        ],
    }


def message_lines(stored: FoundMessage, *, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a message and its deliveries, as ``history`` and ``trace`` list them.

    Args:
        stored: the message; its children follow, indented.
        depth: how far it is indented.
    """
    margin = INDENT * depth
    about = f"  about {one_line(stored.row.subject)}" if stored.row.subject else ""
    signal = one_line(stored.row.signal) or "unopened text"
    sender = f"  sent by {origin}" if (origin := _origin(stored)) else ""
    yield f"{margin}{time_of(stored.row.created_at)}  {signal}  {stored.row.pk}{about}{sender}"
    for delivery in stored.deliveries:
        yield f"{margin}{INDENT}{_delivery_line(delivery, stored.runs.get(delivery.pk))}"
    for child in stored.children:
        yield from message_lines(child, depth=depth + 1)


def _delivery_line(delivery: Delivery, run: RunningDelivery | None) -> str:
    state = State(delivery.state)
    words = [one_line(delivery.receiver) or "(whoever listens)", _running_words(run) or str(state.value)]
    if delivery.attempts:
        words.append(f"{delivery.attempts} {'attempt' if delivery.attempts == 1 else 'attempts'}")
    if delivery.runtime_ms is not None:
        words.append(f"{delivery.runtime_ms} ms")
    if due := _due_time(delivery):
        words.append(f"due at {due}")
    if state == State.HELD and delivery.held_reason:
        words.append(one_line(delivery.held_reason))
    if delivery.error and state != State.DONE:
        words.append(one_line(delivery.error))
    return "  ".join(words)


def _running_words(run: RunningDelivery | None) -> str:
    return "" if run is None else f"running since {time_of(run.started_at)} in {one_line(run.worker)}"


def _due_time(delivery: Delivery) -> str:
    """Return when a delivery is published next; nothing if it waits for no time."""
    if delivery.state not in {State.PENDING, State.PARKED, State.HELD} or ledger.waits_for_release(delivery):
        return ""
    return time_of(delivery.due_at)


def detail_lines(stored: FoundMessage, *, reveal: bool = False) -> Iterator[str]:
    """Yield the lines of ``show``: a message with its payload, and all that is known of its deliveries.

    Args:
        stored: the message.
        reveal: show the values of secret keys too.
    """
    yield from _facts(
        ("message", str(stored.row.pk)),
        ("signal", one_line(stored.row.signal)),
        ("about", ", ".join(map(one_line, _subjects(stored)))),
        ("sent at", f"{time_of(stored.row.created_at)} UTC"),
        *_lineage(stored),
    )
    for delivery in stored.deliveries:
        yield ""
        yield from _facts(
            ("delivery", str(delivery.pk)),
            ("receiver", one_line(delivery.receiver) or "(whoever listens)"),
            ("state", f"{delivery.state} ({State(delivery.state).facts.means})"),
            ("runs", _running_words(stored.runs.get(delivery.pk))),
            ("queue", one_line(delivery.queue)),
            ("attempts", str(delivery.attempts)),
            ("due at", _due_time(delivery)),
            ("started at", time_of(delivery.started_at) if delivery.started_at else ""),
            ("ended at", time_of(delivery.ended_at) if delivery.ended_at else ""),
            ("runtime", "" if delivery.runtime_ms is None else f"{delivery.runtime_ms} ms"),
            ("worker", one_line(delivery.worker)),
            ("held", one_line(delivery.held_reason or "") if delivery.state == State.HELD else ""),
            ("failed at", time_of(delivery.failed_at) if delivery.failed_at else ""),
            ("error", one_line(delivery.error)),
        )
        yield from (f"{INDENT}{one_line(line)}" for line in delivery.traceback.splitlines())
        for attempt in stored.attempts.get(delivery.pk, []):
            yield f"attempt {attempt.number}   {_attempt_line(attempt)}"
    yield ""
    yield from _payload_lines(stored, reveal=reveal)


def _attempt_line(attempt: FailedAttempt) -> str:
    words = [time_of(attempt.ended_at), one_line(attempt.error)]
    if attempt.runtime_ms is not None:
        words.append(f"{attempt.runtime_ms} ms")
    words += [one_line(word) for word in (attempt.worker, attempt.release) if word]
    return "  ".join(words)


def _lineage(stored: FoundMessage) -> list[tuple[str, str]]:
    if stored.message is None:
        return [("text", "sealed, or of another version: it cannot be read here")]
    context = context_of(stored.message)
    lineage = [("context", json.dumps(context) if context else "")]
    lineage.append(("origin", _origin(stored)))
    if stored.message.parent is not None:
        lineage += [("sent by", f"a receiver of {stored.message.parent}"), ("cascade of", str(stored.message.root))]
    return lineage


def _origin(stored: FoundMessage) -> str:
    return one_line(", ".join(f"{key} {value}" for key, value in origin_of(stored.message).items()))


def _subjects(stored: FoundMessage) -> list[str]:
    return [*filter(None, [stored.row.subject]), *lines_of(stored.row.more_subjects)]


def _facts(*facts: tuple[str, str]) -> Iterator[str]:
    yield from (f"{name:10}  {value}" for name, value in facts if value)


def _payload_lines(stored: FoundMessage, *, reveal: bool) -> Iterator[str]:
    payload = payload_of(stored.message, reveal=reveal)
    if payload is None:
        yield "payload     cannot be read here"
        return
    yield "payload"
    yield f"{INDENT}sender: {json.dumps(payload['sender'])}"
    for name, value in payload["values"].items():
        yield f"{INDENT}{one_line(name)}: {json.dumps(value)}"


def message_object(stored: FoundMessage, *, payload: bool = False, reveal: bool = False) -> dict[str, Any]:
    """Return a message, its deliveries and its children, for programs.

    Args:
        stored: the message.
        payload: add the payload.
        reveal: show the values of secret keys too.
    """
    message = stored.message
    shown: dict[str, Any] = {
        "id": str(stored.row.pk),
        "signal": stored.row.signal,
        "subject": stored.row.subject,
        "sent_at": iso(stored.row.created_at),
        "root": None if message is None else str(message.root),
        "parent": None if message is None or message.parent is None else str(message.parent),
        "subjects": _subjects(stored),
        "context": context_of(message),
        "origin": origin_of(message),
        "deliveries": [_delivery_with_attempts(each, stored) for each in stored.deliveries],
        "children": [message_object(each) for each in stored.children],
    }
    if payload:
        shown["payload"] = payload_of(stored.message, reveal=reveal)
    return shown


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery without its message, for programs.

    Args:
        delivery: the delivery.
    """
    return {
        "id": str(delivery.pk),
        "receiver": delivery.receiver,
        "queue": delivery.queue,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "error": delivery.error,
        "held_reason": delivery.held_reason if delivery.state == State.HELD else None,
        "failed_at": iso(delivery.failed_at),
        "started_at": iso(delivery.started_at),
        "ended_at": iso(delivery.ended_at),
        "runtime_ms": delivery.runtime_ms,
        "worker": delivery.worker,
        "due_at": iso(delivery.due_at) if delivery.ended_at is None else None,
        "traceback": delivery.traceback,
    }


def _delivery_with_attempts(delivery: Delivery, stored: FoundMessage) -> dict[str, Any]:
    attempts = [_attempt_object(each) for each in stored.attempts.get(delivery.pk, [])]
    run = stored.runs.get(delivery.pk)
    running = None if run is None else {"since": iso(run.started_at), "worker": run.worker}
    return delivery_object(delivery) | {"running": running, "failed_attempts": attempts}


def _attempt_object(attempt: FailedAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "ended_at": iso(attempt.ended_at),
        "runtime_ms": attempt.runtime_ms,
        "was_lost": attempt.was_lost,
        "worker": attempt.worker,
        "release": attempt.release,
        "error": attempt.error,
        "group": attempt.error_group,
        "traceback": attempt.traceback,
    }

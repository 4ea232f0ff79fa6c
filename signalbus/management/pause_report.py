"""Format pauses and the lines of the audit log, for ``pause``, ``log`` and ``status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from signalbus.management.text import one_line

if TYPE_CHECKING:
    from datetime import datetime

    from signalbus.ledger.operations import LogEntry, Paused


def pause_line(each: Paused) -> str:
    """Return a line about a pause."""
    what = one_line(f"{each.kind}:{each.name}")
    if each.resumed_at is not None:
        how = "as fast as they can be published" if each.rate is None else f"at {each.rate:g} a second"
        return f"{what} is resumed: {each.held} held, released {how}"
    who = f" by {one_line(each.by)}" if each.by else ""
    end = f" until {_time(each.until)}" if each.until else ""
    return f"PAUSED {what}{who} since {_time(each.since)}{end}, {each.held} held{_reason(each.reason)}"


def entry_line(each: LogEntry) -> str:
    """Return a line of the audit log."""
    numbers = {name: value for name, value in {**each.filter, **each.counts}.items() if name != "ids"}
    what = one_line(" ".join(f"{name}:{value}" for name, value in numbers.items()))
    broken = "" if each.state == "done" else f" ({each.state})"
    rate = f" at {each.rate:g}/s" if each.rate else ""
    who = one_line(each.by) or "-"
    return f"{_time(each.at)}  {who} ({each.through})  {each.kind} {what}{rate}{broken}{_reason(each.reason)}"


def _reason(reason: str) -> str:
    return f": {one_line(reason)}" if reason else ""


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def pause_object(each: Paused) -> dict[str, Any]:
    """Return a pause for programs."""
    return {
        "kind": each.kind, "name": each.name, "reason": each.reason, "by": each.by, "since": each.since.isoformat(),
        "until": each.until and each.until.isoformat(), "is_resumed": each.resumed_at is not None, "rate": each.rate,
        "held": each.held,
    }  # fmt: skip


def entry_object(each: LogEntry) -> dict[str, Any]:
    """Return a line of the audit log for programs."""
    return {
        "id": each.id, "at": each.at.isoformat(), "by": each.by, "by_id": each.by_id, "through": each.through,
        "kind": each.kind, "state": each.state, "filter": dict(each.filter), "reason": each.reason, "rate": each.rate,
        "counts": dict(each.counts), "details": dict(each.details),
    }  # fmt: skip

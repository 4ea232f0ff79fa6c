"""Read what people say of a group of failures: notes, and whether it is muted. They are lines of the audit log.

`services/groups` writes them. A muted group raises no alert until the workers run another release, or until somebody
ends the mute.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from signalbus.ledger.base.clock import in_utc, later
from signalbus.ledger.base.deliveries import using
from signalbus.models import Operation, WorkerRecord

if TYPE_CHECKING:
    from datetime import datetime

NOTE: Final = "note"
MUTE: Final = "mute"
UNMUTE: Final = "unmute"
KINDS: Final = (NOTE, MUTE, UNMUTE)
LOOKED_AT: Final = 1000  # lines, the youngest
ALIVE: Final = 60.0  # seconds since the last sign of a worker


@dataclass(frozen=True, slots=True)
class GroupNote:
    """A note about a group, a mute, or the end of a mute.

    Args:
        at: when, in UTC.
        by: the name of the person.
        kind: "note", "mute" or "unmute".
        text: what it says; may be empty.
        release: the release that the workers ran then; empty if none is known.
    """

    at: datetime
    by: str
    kind: str
    text: str
    release: str


@dataclass(slots=True)
class GroupNotes:
    """What people have said of a group, the youngest first.

    Args:
        notes: the notes.
        is_muted: whether the group raises no alert now.
    """

    notes: list[GroupNote] = field(default_factory=list)
    is_muted: bool = False


def newest_release() -> str:
    """Return the release of the living worker that was started last; empty if none has one."""
    living = WorkerRecord.objects.using(using()).filter(seen_at__gt=later(-ALIVE)).exclude(release="")
    found: str | None = living.order_by("-started_at").values_list("release", flat=True).first()
    return found or ""


def group_notes(newest: str) -> dict[str, GroupNotes]:
    """Return the notes by group.

    Args:
        newest: the release of the living worker that was started last; empty if none is known: then each mute holds.
    """
    alias = using()
    rows = Operation.objects.using(alias).filter(kind__in=KINDS).order_by("-pk")[:LOOKED_AT]
    found: defaultdict[str, GroupNotes] = defaultdict(GroupNotes)
    for row in rows:
        note = GroupNote(in_utc(row.created_at, alias), row.by, row.kind, row.reason, row.details.get("release", ""))
        found[str(row.filter.get("group", ""))].notes.append(note)
    for each in found.values():
        change = next((note for note in each.notes if note.kind != NOTE), None)
        each.is_muted = change is not None and change.kind == MUTE and (not newest or change.release == newest)
    return dict(found)


def muted_groups() -> set[str]:
    """Return the groups that raise no alert now."""
    return {group for group, found in group_notes(newest_release()).items() if found.is_muted}

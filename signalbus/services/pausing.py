"""Pause a receiver, a signal or a queue, resume it, and list what is paused (decision 0047)."""

from __future__ import annotations

import difflib
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, get_args

from django.db import transaction

from signalbus import celery
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.registration.registry import registry
from signalbus.services.actors import OPERATE, VIEW
from signalbus.services.audit_log import write_log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from signalbus.ledger.operations import Paused
    from signalbus.services.actors import Actor

PauseKind = Literal["receiver", "signal", "queue"]
PAUSE_KINDS: Final[tuple[PauseKind, ...]] = get_args(PauseKind)
MOST_RATE: Final = 1_000_000.0  # deliveries a second: more is none
MOST_CHARACTERS: Final = 512  # of a name


class UnknownName(ConfigurationError):  # noqa: N818 - says what is wrong
    """This process does not know a receiver, signal or queue of this name, or nothing of this name is paused.

    Args:
        text: the whole error, with what to do.
        name: the name.
        close: known names that are like it.
    """

    def __init__(self, text: str, name: str, close: list[str]) -> None:
        super().__init__(text)
        self.name = name
        self.close = close


def pause(  # noqa: PLR0913 - what is asked of who pauses something
    kind: PauseKind,
    name: str,
    *,
    actor: Actor,
    reason: str = "",
    until: timedelta | datetime | None = None,
    unknown: bool = False,
) -> bool:
    """Hold all deliveries of a receiver, a signal or a queue; each worker obeys within five seconds.

    What runs goes on. Held deliveries wait in the ledger: they are not lost, and no attempt is counted.

    Args:
        kind: "receiver", "signal" or "queue".
        name: the receiver's id, the signal's name or the queue's.
        actor: who pauses it.
        reason: why; each delivery that is held shows it.
        until: when the pause ends by itself: after so long, or at an aware time; None if somebody has to resume it.
        unknown: accept a name that this process does not know: the workers may.

    Returns:
        False if it was paused before; then reason and end are the new ones.

    Raises:
        UnknownName: this process does not know the name, and `unknown` is not given.
        ConfigurationError: `until` is over already, or is a time without a time zone.
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    if not unknown:
        _reject_unknown(kind, name)
    with transaction.atomic(using=ledger.using()):
        seconds = None if until is None else _seconds(until)
        is_new = ledger.pause(kind, name, reason=reason, by=actor.name, by_id=actor.id, seconds=seconds)
        write_log(actor, "pause", {kind: name}, reason=reason, details={} if seconds is None else {"seconds": seconds})
    return is_new


def resume(kind: PauseKind, name: str, *, actor: Actor, reason: str = "", rate: float | None = None) -> int:
    """End a pause: the sweepers release what it holds.

    Args:
        kind: "receiver", "signal" or "queue".
        name: the name that was paused.
        actor: who resumes it.
        reason: why.
        rate: deliveries a second that are released; None for as many as the sweepers can publish.

    Returns:
        How many deliveries it holds.

    Raises:
        UnknownName: nothing of this name is paused.
        ConfigurationError: the rate is not above 0.
        PermissionDenied: the actor must not.
    """
    actor.require(OPERATE)
    if rate is not None and not 0 < rate <= MOST_RATE:
        raise ConfigurationError(f"The rate is {rate!r}; it must be a number of deliveries a second, above 0.")
    with transaction.atomic(using=ledger.using()):
        held = ledger.resume(kind, name, rate=rate)
        if held is None:
            paused = [f"{each.kind}:{each.name}" for each in ledger.pauses()]
            listed = f"Paused are {', '.join(paused)}." if paused else "Nothing is paused."
            raise UnknownName(f"{kind}:{name} is not paused. {listed}", name, _close(f"{kind}:{name}", paused))
        write_log(actor, "resume", {kind: name}, reason=reason, rate=rate, counts={"held": held})
    return held


def paused(actor: Actor) -> list[Paused]:
    """Return what is paused, also while its deliveries are being released.

    Args:
        actor: who asks.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    return ledger.pauses()


def _reject_unknown(kind: PauseKind, name: str) -> None:
    if kind not in PAUSE_KINDS:
        raise ConfigurationError(f"{kind!r} cannot be paused; say one of {', '.join(PAUSE_KINDS)}.")
    if not 0 < len(name) <= MOST_CHARACTERS or not name.isprintable():
        raise ConfigurationError(f"{name[:MOST_CHARACTERS]!r} is no name of a {kind}.")
    known = _known(kind)
    if name in known:
        return
    close = _close(name, known)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownName(
        f"This process knows no {kind} {name!r}.{meant} If only the workers know it, say so: "
        "`pause --unknown`, or unknown=True.",
        name,
        close,
    )


def _known(kind: PauseKind) -> set[str]:
    """Return the names of today and of before that this process knows; the ledger knows more queues."""
    if kind == "signal":
        named = [(signal.known_name(), signal.was) for signal in registry]
        return {each for name, was in named if name for each in (name, *was)}
    if kind == "receiver":
        return {id_ for signal in registry for entry in signal.entries() for id_ in (entry.id, *entry.policy.was)}
    return {celery.default_queue(), *registry.queues(), *(queue for queue in ledger.backlogs() if queue)}


def _close(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, sorted(known), n=3)


def _seconds(until: timedelta | datetime) -> float:
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise ConfigurationError(f"{until} has no time zone; make it an aware time.")
        alias = ledger.using()
        until = until.astimezone(UTC) - ledger.in_utc(ledger.clock_of(alias), alias)
    seconds = until.total_seconds()
    if not 0 < seconds < math.inf:
        raise ConfigurationError("The end of the pause is over already; give a time to come.")
    return seconds

"""Define the states of a delivery, and the facts about each by which other code decides.

A new state is added here: which states are open, due, waiting or closed follows from its facts. Counts and pages that
treat a state in a way of their own name it (docs/architecture.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from django.db import models


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that hold for every delivery in a state.

    Args:
        means: its description in `manage.py signalbus failed`.
        is_open: it has not ended.
        is_due: the sweeper publishes it when it is due.
        is_taken: it is on its way to a worker, or in flight.
        is_waiting: no worker has claimed it, so it can be cancelled, postponed or parked; `audit` counts it as waiting.
        is_closed: it has ended for good; a dead one waits for a person.
    """

    means: str
    is_open: bool = False
    is_due: bool = False
    is_taken: bool = False
    is_waiting: bool = False
    is_closed: bool = False


class State(models.TextChoices):
    """The state of a delivery, with the facts that all code decides by.

    A state that is new, or that becomes due, taken or closed, changes an index and the field's choices: it needs a
    migration, and a row in the table of docs/operating.md.
    """

    facts: Facts

    # PENDING waits for its time, or for a broker. PARKED is unknown to the worker that met it, and is published again
    # for a day. HELD waits because a gate says so, until its time or until it is released. PUBLISHED is published again
    # when a marker proves it lost, RUNNING when its claim is overdue.
    PENDING = "pending", Facts(means="published when it is due", is_open=True, is_due=True, is_waiting=True)
    PARKED = "parked", Facts(means="unknown to the workers; tried again", is_open=True, is_due=True, is_waiting=True)
    HELD = "held", Facts(means="may not run yet; published when it is due", is_open=True, is_due=True, is_waiting=True)
    PUBLISHED = "published", Facts(means="on its way to a worker", is_open=True, is_taken=True, is_waiting=True)
    RUNNING = "running", Facts(means="running now", is_open=True, is_due=True, is_taken=True)
    DONE = "done", Facts(means="done", is_closed=True)
    SKIPPED = "skipped", Facts(means="skipped: its row was not found, or nobody received it", is_closed=True)
    DEAD = "dead", Facts(means="dead: retry or discard it")
    DISCARDED = "discarded", Facts(means="discarded", is_closed=True)

    if not TYPE_CHECKING:  # a type checker would take it for what State("dead") calls

        def __new__(cls, value: str, facts: Facts) -> Self:
            """Make a member whose value is the text alone."""
            state = str.__new__(cls, value)
            state._value_ = value
            state.facts = facts
            return state

    @property
    def word(self) -> str:
        """The name of the state in an `audit`: waiting, or its own name."""
        return "waiting" if self.facts.is_waiting else self.value


# In the order of the members, which is that of the indexes' conditions.
OPEN_STATES = tuple(state for state in State if state.facts.is_open)
DUE_STATES = tuple(state for state in State if state.facts.is_due)
TAKEN_STATES = tuple(state for state in State if state.facts.is_taken)
WAITING_STATES = tuple(state for state in State if state.facts.is_waiting)
CLOSED_STATES = tuple(state for state in State if state.facts.is_closed)
# Those that ended otherwise than well: few, and looked for by people.
LOOKED_UP_STATES = tuple(state for state in State if not state.facts.is_open and state != State.DONE)

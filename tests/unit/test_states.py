"""The states of a delivery: all that the code decides by a state follows from the facts beside it."""

from __future__ import annotations

import pickle
from functools import reduce
from operator import or_

import pytest
from django.db.models import Q

from signalbus import models
from signalbus.ledger.base.deliveries import DeliveryColumns
from signalbus.ledger.operations.ledger_audit import COLUMNS
from signalbus.models import Delivery, State

STATES = {
    "OPEN_STATES": {"pending", "parked", "held", "published", "running"},
    "DUE_STATES": {"pending", "parked", "held", "running"},
    "TAKEN_STATES": {"published", "running"},
    "WAITING_STATES": {"pending", "parked", "held", "published"},
    "CLOSED_STATES": {"done", "skipped", "discarded"},
}


@pytest.mark.parametrize("name", STATES)
def test_the_facts_of_each_state(name: str):
    """A state is open, due, taken, waiting or closed as the ledger has always treated it."""
    assert {state.value for state in getattr(models, name)} == STATES[name]


@pytest.mark.parametrize("state", State)
def test_the_facts_of_a_state_agree(state: State):
    """What is due, taken or waiting is open; what is open is not closed; each open state waits or is taken."""
    facts = state.facts

    assert facts.is_open or not (facts.is_due or facts.is_taken or facts.is_waiting)
    assert not (facts.is_open and facts.is_closed)
    assert facts.is_open == (facts.is_waiting or facts.is_taken)


@pytest.mark.parametrize("state", State)
def test_each_state_is_counted_and_named(state: State):
    """The audit has a column for each state, and `failed` says what each means."""
    assert state.word in COLUMNS
    assert state.facts.means


def test_the_columns_of_an_audit():
    """The columns of the table, which are the keys of the JSON, keep their names and their order."""
    assert COLUMNS == ("done", "skipped", "dead", "discarded", "retrying", "waiting", "running")


def test_a_state_is_its_text():
    """A state is read from a row, written into one, and sent to another process, as its text alone."""
    field = Delivery._meta.get_field("state")

    assert State("dead") is State.DEAD == "dead"  # type: ignore[comparison-overlap]
    assert f"{State.DEAD}" == field.get_prep_value(State.DEAD) == "dead"
    assert pickle.loads(pickle.dumps(State.DEAD)) is State.DEAD
    assert (State.DEAD.label, State.choices[0]) == ("Dead", ("pending", "Pending"))


def test_the_conditions_of_the_indexes_name_the_states_of_the_facts():
    """An index whose condition lists states lists those of the statements that use it, in the same order."""
    conditions = {index.name: str(index.condition) for index in Delivery._meta.indexes}

    assert conditions["signalbus_waiting"] == str(reduce(or_, [Q(state=state) for state in models.DUE_STATES]))
    assert str(models.CLOSED_STATES) in conditions["signalbus_order"]
    assert str(models.TAKEN_STATES) in conditions["signalbus_admitted"]


def test_the_values_that_the_ledger_updates_are_columns():
    """A type checker compares them with each caller: a misspelt column is found before anything runs."""
    columns = {field.attname for field in Delivery._meta.concrete_fields}
    assert DeliveryColumns.__annotations__.keys() <= columns

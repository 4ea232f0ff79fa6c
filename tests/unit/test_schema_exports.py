"""``manage.py signalbus schema --format`` exports what signals carry: AsyncAPI 3, JSON Schema, a Mermaid graph."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from decimal import Decimal  # noqa: TC003 - read when the payload is checked
from io import StringIO
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from django.core.management import CommandError, call_command

from signalbus import Signal
from signalbus.registration.registry import registry
from signalbus.schemas.json_schema import schema_of
from signalbus.schemas.samples import sample_text
from tasks.admissions.models import Cohort
from tests.unit.payload_classes import EveryType, Stamped

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser
    from django.db.models import Model

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # a field of theirs has the name of one of pydantic
    from asyncapi3 import AsyncAPI3


@dataclass(kw_only=True)
class Enrolled:
    """Somebody was enrolled.

    By whom does not matter.
    """

    cohort: Cohort
    price: Decimal
    pair: tuple[int, str] = (1, "a")
    seats: int = 1


def on_enrolled(sender, cohort, **kwargs):
    """Tell the teachers.

    All of them.
    """


@pytest.fixture
def enrolled() -> Signal:
    """A declared signal with a receiver."""
    signal: Signal = Signal("tests.enrolled", payload=Enrolled, version=2)
    signal.upcast(from_version=1)(lambda payload: payload)
    signal.connect(on_enrolled, sender=Cohort)
    return signal


def exported(*arguments: str) -> str:
    """Run the command; return its output."""
    out = StringIO()
    call_command("signalbus", "schema", *arguments, stdout=out)
    return out.getvalue()


def test_asyncapi_is_valid(enrolled: Signal):
    """The document is one of AsyncAPI 3, whatever the signals are called."""
    odd: list[Signal] = [Signal("tests.[odd] name/ü", payload=EveryType), Signal("tests._odd_ name/ü")]
    document = json.loads(exported("--format", "asyncapi", "--title", "Shop", "--version-of-app", "3.1"))
    AsyncAPI3.model_validate(document)
    assert document["info"] == {"title": "Shop", "version": "3.1"}
    assert {channel["address"] for channel in document["channels"].values()} >= {signal.name for signal in odd}


def test_asyncapi_has_payloads_operations_and_docstrings(enrolled: Signal):
    """A reader sees what is carried, by whom it is sent and who receives it."""
    document = json.loads(exported("--format", "asyncapi"))
    message = document["components"]["messages"]["tests_enrolled"]
    assert (message["x-version"], message["x-upcasts"], message["summary"]) == (2, [1], "Somebody was enrolled.")
    assert message["payload"]["description"] == "Somebody was enrolled.\n\nBy whom does not matter."
    assert message["payload"]["properties"]["cohort"] == {
        "x-model": "admissions.Cohort", "description": Cohort.__doc__
    }  # fmt: skip
    assert message["payload"]["properties"]["pair"]["items"] == [{"type": "integer"}, {"type": "string"}]
    received = "receive-tests_enrolled-tests_unit_test_schema_exports_on_enrolled_admissions_Cohort_"
    assert document["operations"][received]["summary"] == "Tell the teachers."
    assert document["operations"][received]["x-sender"] == "admissions.Cohort"
    (sender,) = document["operations"]["send-admissions_cohort_saved"]["x-senders"]
    assert sender["about"]
    assert "tasks/admissions/models.py:" in sender["place"]


def test_json_schema_is_valid(enrolled: Signal):
    """Each declared signal is a definition of its name, and payloads in JSON are validated by it."""
    document: dict[str, Any] = json.loads(exported("--format", "json-schema"))
    jsonschema.Draft202012Validator.check_schema(document)
    schema = document["$defs"]["tests.enrolled"]
    jsonschema.validate({"cohort": 1, "price": "1.50", "pair": [1, "a"]}, schema)
    for wrong in ({"cohort": 1}, {"cohort": 1, "price": 1}, {"cohort": 1, "price": "1", "more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert "admissions.cohort_saved" not in document["$defs"]


def test_the_same_code_exports_the_same(enrolled: Signal):
    """A document may be committed, and compared, also if a payload has a default that is made for each message."""
    signal: Signal = Signal("tests.stamped", payload=Stamped)
    assert registry.signal("tests.stamped") is signal
    assert '"tests.stamped"' in exported("--format", "json-schema")
    assert exported("--format", "json-schema") == exported("--format", "json-schema")
    assert exported("--format", "asyncapi") == exported("--format", "asyncapi")


def test_a_payload_with_any_row_is_exported():
    """``Model`` itself and abstract models have rows of other models, and are none of the installed ones."""

    @dataclass
    class AnyRow:
        row: Model
        user: AbstractUser

    signal: Signal = Signal("tests.any_row", payload=AnyRow)
    assert registry.signal("tests.any_row") is signal
    described = json.loads(exported("--format", "json-schema"))["$defs"]["tests.any_row"]["properties"]
    assert described["row"] == {"x-python": "django.db.models.base:Model"}
    assert described["user"]["x-model"] == "auth.AbstractUser"
    assert "permissions" in described["user"]["description"]
    assert sample_text(AnyRow) is None


def test_mermaid_draws_the_graph_without_a_database(enrolled: Signal, django_assert_num_queries):
    """A graph of who sends to whom for a document."""
    text = exported("--format", "mermaid")
    assert text.startswith("flowchart")
    assert "tests.enrolled" in text


def test_one_thing_is_asked_at_a_time():
    """Nothing is written beside an export."""
    with pytest.raises(CommandError, match="not allowed with"):
        exported("--write", "--format", "asyncapi")
    assert registry.signal("tests.enrolled") is None


def test_a_tuple_of_any_length_is_an_array_of_any_length():
    """A part of it may stand for any number of elements."""
    assert schema_of(tuple[int, *tuple[str, ...]]) == {"type": "array", "x-python": "tuple"}
    assert schema_of(tuple[int, str])["maxItems"] == 2

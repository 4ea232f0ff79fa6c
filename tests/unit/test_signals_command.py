"""``manage.py signalbus signals`` lists what each signal carries, and the places that send and receive it."""

from __future__ import annotations

import inspect
import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from signalbus import Signal
from tasks.admissions import models
from tests.unit import payload_classes


def listed(*arguments: str) -> str:
    """Run the command; return its output."""
    out = StringIO()
    call_command("signalbus", "signals", *arguments, stdout=out)
    return out.getvalue()


def on_listed(sender, instance, **kwargs):
    """Do something with the cohort.

    More of it.
    """


def on_listed_here(sender, **kwargs):
    """Run in the sender's process."""


def test_a_declared_signal_is_listed_with_all_places():
    """Its payload, version, keys and receivers, each with file and line."""
    signal: Signal = Signal("tests.listed", payload=payload_classes.CohortSaved, version=2)
    signal.connect(on_listed, sender=models.Cohort)
    signal.connect(on_listed_here, inline=True)
    place = f"{__file__}:{on_listed.__code__.co_firstlineno}"
    _, line = inspect.getsourcelines(payload_classes.CohortSaved)

    text = listed("tests.listed")

    assert text.splitlines()[0].startswith(f"tests.listed, declared at {__name__}:")
    assert text.splitlines()[1:] == [
        f"  carries tests.unit.payload_classes.CohortSaved, version 2 ({payload_classes.__file__}:{line})",
        "    instance: Cohort, created: bool = …, tags: list[str] = …",
        "  no call of its send() found in the sources",
        f"  received by {__name__}.on_listed[admissions.Cohort] ({place}), from admissions.Cohort only",
        f"  received inline at {__file__}:{on_listed_here.__code__.co_firstlineno}",
    ]


def test_senders_are_found_in_the_sources():
    """The project's own signal is sent where its model is saved."""
    text = listed("admissions.cohort_saved")
    assert "  carries any payload" in text
    assert f"  sent at {models.__file__}:" in text


def test_all_signals_are_an_object_for_programs():
    """``--json`` has the same facts."""
    signal: Signal = Signal("tests.listed_as_object", payload=payload_classes.CohortSaved)
    signal.connect(on_listed)
    shown = json.loads(listed("--json"))
    by_name = {each["name"]: each for each in shown["signals"]}
    assert shown["schema"] == 1
    assert list(by_name) == sorted(by_name)
    assert by_name["tests.listed_as_object"]["payload"]["version"] == 1
    assert by_name["tests.listed_as_object"]["receivers"][0]["about"] == "Do something with the cohort."
    assert by_name["admissions.cohort_saved"]["payload"] is None


def test_explain_names_the_payload():
    """Who asks where a message goes sees what it carries."""
    signal: Signal = Signal("tests.explained", payload=payload_classes.CohortSaved, version=2)
    signal.connect(on_listed)
    out = StringIO()
    call_command("signalbus", "explain", "tests.explained", stdout=out)
    assert "carries tests.unit.payload_classes.CohortSaved, version 2" in out.getvalue()


def test_an_unknown_signal_is_an_error():
    """A misspelt name is not listed as if nothing listened."""
    with pytest.raises(CommandError, match=r"No signal tests\.unknown"):
        listed("tests.unknown")

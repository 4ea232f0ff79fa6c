"""The system checks compare receivers with the payload that their signal declares, and name both places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypedDict

import pytest
from django.contrib.auth.models import User  # noqa: TC002 - read by the check
from django.core import checks
from django.db.models import Model

from signalbus import Signal
from signalbus.checks import check_contracts
from signalbus.contracts.assignability import fits
from tasks.admissions.models import Cohort
from tests.unit.payload_classes import CohortSavedDict, EveryType, Slug


@dataclass(kw_only=True)
class Saved:
    """A cohort was saved."""

    instance: Cohort
    created: bool = False
    editor: User | None = None
    tags: list[str] = field(default_factory=list)


def on_saved(sender, instance: Cohort, created: bool, editor: User | None, tags: Sequence[str], **kwargs):
    """Take all of it."""


def on_less(sender, signal, instance: Model, **kwargs: Any):
    """Take a part of it."""


def on_unknown_key(sender, instance, course, **kwargs):
    """Require what is not carried."""


def on_other_type(sender, created: str, **kwargs):
    """Take another type."""


def on_other_model(sender, instance: User, **kwargs):
    """Take another model."""


def on_never_none(sender, editor: User, **kwargs):
    """Take no None."""


def on_position(created, /, **kwargs):
    """Take a key by position."""


def on_misspelt(sender, craeted=False, **kwargs):
    """Take what is never carried."""


@pytest.fixture
def saved() -> Signal:
    """Declare a signal."""
    signal: Signal = Signal("tests.declared_receivers", payload=Saved)
    return signal


def reports() -> list[checks.CheckMessage]:
    """Return what the check says of the signals of these tests."""
    return [each for each in check_contracts() if "tests.declared_" in each.msg]


@pytest.mark.parametrize("inline", [False, True])
def test_receivers_that_take_the_payload_pass(saved: Signal, inline: bool):
    """A receiver may take wider types, and fewer keys."""
    saved.connect(on_saved, inline=inline)
    saved.connect(on_less, inline=inline)
    assert reports() == []


@pytest.mark.parametrize(
    ("receiver", "said"),
    [
        (on_unknown_key, "requires course, which tests.declared_receivers does not carry"),
        (on_other_type, "takes created as str, and tests.declared_receivers carries bool"),
        (on_other_model, "takes instance as User, and tests.declared_receivers carries Cohort"),
        (on_never_none, "takes editor as User, and tests.declared_receivers carries .*User | None"),
        (on_position, "takes created by position only"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_receiver_that_would_fail_is_named_with_both_places(saved: Signal, receiver, said):
    """Five kinds of wrong receivers are errors, with the file and line of the receiver and of the payload."""
    saved.connect(receiver)
    (report,) = reports()
    line = receiver.__code__.co_firstlineno
    assert (report.id, report.level) == ("signalbus.E007", checks.ERROR)
    assert f"{receiver.__name__} ({__file__}:{line}) " in report.msg
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(report.msg)
    if receiver is not on_position:
        assert f"payload {__name__}.Saved ({__file__}:" in report.msg


def test_a_key_that_is_never_carried_is_a_warning(saved: Signal):
    """A misspelt key with a default never gets another value."""
    saved.connect(on_misspelt)
    (report,) = reports()
    assert report.id == "signalbus.W010"
    assert "takes craeted, which tests.declared_receivers never carries" in report.msg


def test_a_key_that_a_sender_may_leave_out_has_a_default():
    """A TypedDict fills in nothing."""

    def on_created(sender, created: bool, **kwargs):
        """Require it."""

    signal: Signal = Signal("tests.declared_dict", payload=CohortSavedDict)
    signal.connect(on_created, dispatch_uid="created")
    (report,) = reports()
    assert "requires created, which a sender of tests.declared_dict may leave out" in report.msg


def test_callables_without_a_signature_of_their_own_are_looked_at(saved: Signal):
    """An object that can be called is looked at through its class, a partial without what it holds."""

    class OnSaved:
        def __call__(self, sender: object, course: int, **kwargs: object) -> None:
            """Require what is not carried."""

    receiver, held = OnSaved(), partial(on_unknown_key, course=1)
    saved.connect(receiver, inline=True)
    saved.connect(held, inline=True)
    (report,) = reports()
    assert "OnSaved (" in report.msg


def test_a_field_that_cannot_be_checked_is_a_warning():
    """The annotation names what does not exist."""
    signal: Signal = Signal("tests.declared_unchecked", payload=EveryType)
    (report,) = reports()
    assert signal.contract is not None
    assert report.id == "signalbus.W011"
    assert "unknown of tests.declared_unchecked is not checked" in report.msg


def test_a_version_without_an_upcast_is_a_warning():
    """Messages of that version would be parked."""
    signal: Signal = Signal("tests.declared_versions", payload=Saved, version=3)
    signal.upcast(from_version=2)(lambda payload: payload)
    (report,) = reports()
    assert report.id == "signalbus.W012"
    assert "has version 3, and no upcast from version 1" in report.msg


def test_a_class_that_cannot_be_a_payload_is_an_error():
    """The mistake is found before the first send."""

    @dataclass
    class WithSignal:
        signal: str

    signal: Signal = Signal("tests.declared_wrongly", payload=WithSignal)
    (report,) = reports()
    assert signal.contract is not None
    assert report.id == "signalbus.E006"
    assert "receivers get a signal beside the payload" in report.msg


def test_an_option_that_names_no_key_is_an_error():
    """A misspelt ordering key would leave all messages unordered, without a word."""
    signals: list[Signal] = [
        Signal("tests.declared_ordered", payload=Saved, ordered_by="instanse"),
        Signal("tests.declared_unique", payload=Saved, unique="instanse"),
        Signal("tests.declared_related", payload=Saved),
        Signal("tests.declared_rightly", payload=Saved, ordered_by="instance"),
    ]
    signals[2].connect(on_less, select_related={"instanse": "academy"})
    assert [each.msg.partition(", which")[0] for each in reports()] == [
        "tests.declared_ordered: ordered_by names the key 'instanse'",
        f"tests.declared_related: select_related of {__name__}.on_less names the key 'instanse'",
        "tests.declared_unique: unique names the key 'instanse'",
    ]
    assert {each.id for each in reports()} == {"signalbus.E006"}


class Part(TypedDict):
    """A part of a payload."""

    name: str


@pytest.mark.parametrize(
    ("declared", "wanted", "expected"),
    [
        (int, int, True),
        (bool, int, True),
        (int, float, True),
        (float, int, False),
        (int, Any, True),
        (Any, int, True),
        (int, object, True),
        (int | None, int, False),
        (int, int | None, True),
        (int | str, int | str | None, True),
        (Literal["a", "b"], str, True),
        (Literal["a", "b"], Literal["a", "b", "c"], True),
        (Literal["a", "b"], Literal["a"], False),
        (str, Literal["a"], False),
        (list[int], Sequence[int], True),
        (list[int], list[str], False),
        (list[int], list, True),
        (list, list[int], True),
        (list[int], tuple[int, ...], False),
        (tuple[int, ...], Iterable[int], True),
        (dict[str, int], Mapping[str, float], True),
        (dict[str, int], Mapping[int, int], False),
        (Part, dict, True),
        (Part, Part, True),
        (int, Part, False),
        (dict[str, Any], Part, True),
        (Slug, str, True),
        (str, Slug, True),
        (Cohort, Model, True),
        (Model, Cohort, False),
        (type[Cohort], type[Model], True),
    ],
)
def test_types_are_compared_as_type_checkers_do(declared, wanted, expected):
    """Every value of the declared type is one of the wanted type, or in doubt may be."""
    assert fits(declared, wanted) is expected

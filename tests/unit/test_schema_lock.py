"""The lock file says what the code promised: a change that strands messages is refused, with the remedy."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal  # noqa: TC003 - read by the check
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, SupportsInt, TypedDict
from uuid import UUID

import pytest
from django.contrib.auth.models import AbstractUser, User
from django.core.management import CommandError, call_command
from django.db.models import Model
from django.test import modify_settings

from signalbus import Signal
from signalbus.checks import check_lock_file
from signalbus.contracts.contract import Contract
from signalbus.contracts.type_checks import check_of
from signalbus.models import State
from signalbus.registration.registry import registry
from signalbus.schemas.json_schema import schema_of, schema_of_payload
from signalbus.schemas.payload_shapes import shape_of
from signalbus.schemas.samples import fault_of_upcasts, sample_text
from signalbus.schemas.schema_comparison import first_misfit
from signalbus.wire import codec
from tasks.admissions.models import Academy, Cohort
from tests.unit.payload_classes import (
    Address,
    CohortSaved,
    CohortSavedAttrs,
    CohortSavedDict,
    CohortSavedModel,
    CohortSavedStruct,
    EveryType,
    Ordered,
    Positive,
    Stamped,
    StampedAttrs,
    StampedModel,
    StampedStruct,
)

from .wire_app.models import Place, Point, SpecialThing, Thing
from .wire_values import saved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "tests.locked"
COHORT = saved(Cohort, pk=7)


@dataclass(kw_only=True)
class Paid:
    """Before."""

    number: int
    kind: Literal["card", "cash"] = "card"
    note: str | None = None
    cohort: Cohort | None = None


@dataclass(kw_only=True)
class WithoutKey:
    number: int
    kind: Literal["card", "cash"] = "card"
    cohort: Cohort | None = None


@dataclass(kw_only=True)
class Retyped:
    number: str
    kind: Literal["card", "cash"] = "card"
    note: str | None = None
    cohort: Cohort | None = None


@dataclass(kw_only=True)
class Narrowed:
    number: int
    kind: Literal["card"] = "card"
    note: str | None = None
    cohort: Cohort | None = None


@dataclass(kw_only=True)
class OtherModel:
    number: int
    kind: Literal["card", "cash"] = "card"
    note: str | None = None
    cohort: Academy | None = None


@dataclass(kw_only=True)
class WithRequiredKey:
    number: int
    amount: Decimal
    kind: Literal["card", "cash"] = "card"
    note: str | None = None
    cohort: Cohort | None = None


@dataclass(kw_only=True)
class WithoutDefault:
    number: int
    kind: Literal["card", "cash"]
    note: str | None = None
    cohort: Cohort | None = None


@dataclass(kw_only=True)
class WithOptionalKey:
    number: int
    kind: Literal["card", "cash"] = "card"
    note: str | None = None
    cohort: Cohort | None = None
    more: list[int] | None = None


@dataclass(kw_only=True)
class Widened:
    """With another docstring and another default."""

    number: int | str
    kind: Literal["card", "cash", "gift"] = "gift"
    note: str | None = ""
    cohort: Cohort | None = None


def on_paid(sender, **kwargs):
    """Receive."""


def on_paid_too(sender, **kwargs):
    """Receive as well."""


DEPLOYED: list[Signal] = []  # keeps them alive


def deploy(payload: Any = Paid, name: str = NAME, receivers: Any = ((on_paid, {}),), **options: Any) -> Signal:
    """Declare the signal as the code of a deploy does, in place of that of the deploy before."""
    for number, other in list(registry._signals.items()):
        if other.known_name() in (NAME, "tests.locked_anew"):
            del registry._signals[number]
            registry._by_name.clear()
    DEPLOYED.clear()
    signal: Signal = Signal(name, payload=payload, **options)
    DEPLOYED.append(signal)
    for receiver, policy in receivers:
        signal.connect(receiver, **policy)
    return signal


@pytest.fixture(autouse=True)
def forget():
    """Forget the signals of a test."""
    yield
    DEPLOYED.clear()


@pytest.fixture
def lock(tmp_path: Path) -> Callable[..., str]:
    """A function that runs ``schema`` with a lock file, and returns the output with the errors."""

    def run(*arguments: str) -> str:
        out, err = StringIO(), StringIO()
        file = tmp_path / "signalbus.lock.json"
        try:
            call_command("signalbus", "schema", *arguments, "--file", str(file), stdout=out, stderr=err)
        except CommandError as error:
            raise CommandError(f"{err.getvalue()}{error}") from error
        return out.getvalue()

    return run


def test_unchanged_code_writes_the_same_bytes(lock, tmp_path: Path):
    """Writing twice, and checking, changes nothing; rows and keys are sorted."""
    deploy(receivers=[(on_paid_too, {}), (on_paid, {})])
    lock("--write")
    before = (tmp_path / "signalbus.lock.json").read_bytes()
    deploy(receivers=[(on_paid, {}), (on_paid_too, {})])
    lock("--write")
    assert (tmp_path / "signalbus.lock.json").read_bytes() == before
    assert "The code is as signalbus.lock.json says." in lock("--check")
    locked = json.loads(before)["signals"][NAME]
    assert list(locked["receivers"]) == [f"{__name__}.on_paid", f"{__name__}.on_paid_too"]
    assert locked["versions"]["1"]["payload"]["required"] == ["number"]
    assert locked["versions"]["1"]["sample"] == {
        "number": 1, "kind": "card", "note": "text", "cohort": {"$ref": ["admissions.Cohort", 1]}
    }  # fmt: skip


@pytest.mark.parametrize("payload", [Stamped, StampedAttrs, StampedModel, StampedStruct])
def test_a_default_that_a_factory_makes_is_not_written(lock, tmp_path: Path, payload: type):
    """It is another one at each call: the file would change without a change of the code."""
    deploy(payload)
    lock("--write")
    before = (tmp_path / "signalbus.lock.json").read_bytes()
    lock("--write")
    assert (tmp_path / "signalbus.lock.json").read_bytes() == before
    assert json.loads(before)["signals"][NAME]["versions"]["1"]["payload"] == {
        "type": "object",
        "properties": {"name": {"type": "string", "default": "text"}, "stamp": {"type": "string"}},
        "additionalProperties": False,
    }


def test_a_receiver_of_two_senders_keeps_both(lock, tmp_path: Path):
    """The order in which they are connected changes nothing; to drop one is refused, to add one passes."""
    uid = f"{__name__}.on_paid"
    both = [(on_paid, {"sender": sender, "dispatch_uid": uid}) for sender in (Cohort, Academy)]
    deploy(receivers=both)
    lock("--write")
    before = (tmp_path / "signalbus.lock.json").read_bytes()
    deploy(receivers=both[::-1])
    lock("--write")
    assert (tmp_path / "signalbus.lock.json").read_bytes() == before
    deploy(receivers=both[:1])
    with pytest.raises(
        CommandError, match=r"listens to admissions\.Cohort, and did to admissions\.Academy, admissions\.Cohort"
    ):
        lock("--check")
    lock("--write", "--accept")
    deploy(receivers=both)
    assert "listens to admissions.Academy, admissions.Cohort, and did to admissions.Cohort" in lock("--check")
    deploy()
    assert "listens to any sender, and did to admissions.Cohort" in lock("--check")


def upcast(function: Any, payload: Any = WithoutKey) -> Callable[[], Signal]:
    """Return a deploy of version 2 with an upcast."""

    def declare() -> Signal:
        signal = deploy(payload, version=2)
        signal.upcast(from_version=1)(function)
        return signal

    return declare


def drop_note(payload):
    """Bring a payload up."""
    return {key: value for key, value in payload.items() if key != "note"}


BREAKING: list[tuple[str, Callable[[], Any], str]] = [
    ("removed signal", lambda: deploy(name="tests.locked_anew", receivers=()), f"the signal {NAME} is gone"),
    ("renamed signal", lambda: deploy(name="tests.locked_anew"), f'is tests.locked_anew now, .* was=."{NAME}".'),
    ("removed receiver", lambda: deploy(receivers=()), r"receiver .*\.on_paid of tests.locked is gone"),
    ("renamed receiver", lambda: deploy(receivers=[(on_paid_too, {})]), r"on_paid_too now, connect that with was="),
    ("removed key", lambda: deploy(WithoutKey), "carries no note any more.*\n.*eclare version=2 with @signal.upcast"),
    ("retyped key", lambda: deploy(Retyped), "carries another type as number"),
    ("narrowed key", lambda: deploy(Narrowed), "carries another type as kind"),
    ("key of another model", lambda: deploy(OtherModel), "carries another type as cohort"),
    ("new required key", lambda: deploy(WithRequiredKey), "requires the new key amount.*\n.*ive it a default"),
    ("default removed", lambda: deploy(WithoutDefault), "requires kind.*\n.*ive it a default again"),
    ("no upcast", lambda: deploy(WithoutKey, version=2), "no upcast leads from version 1"),
    ("failing upcast", upcast(lambda payload: payload["gone"]), "fail on the stored sample: KeyError: 'gone'"),
    ("upcast to another type", upcast(lambda payload: {"number": "1"}), "stored sample: .*number: .*takes int"),
    ("other sender", lambda: deploy(receivers=[(on_paid, {"sender": Cohort, "dispatch_uid": f"{__name__}.on_paid"})]),
     "listens to admissions.Cohort, and did to any sender"),
]  # fmt: skip
HARMLESS: list[tuple[str, Callable[[], Any], str]] = [
    ("new key with a default", lambda: deploy(WithOptionalKey), "carries the new key more"),
    ("wider types, other defaults and docstrings", lambda: deploy(Widened), ""),
    ("new receiver", lambda: deploy(receivers=[(on_paid, {}), (on_paid_too, {})]), "on_paid_too .* is new"),
    ("renamed receiver", lambda: deploy(receivers=[(on_paid_too, {"was": [f"{__name__}.on_paid"]})]), "is called"),
    ("renamed signal", lambda: deploy(name="tests.locked_anew", was=[NAME]), "is called tests.locked_anew"),
    ("new version with an upcast", upcast(drop_note), "has version 2, and had 1"),
    ("another queue", lambda: deploy(receivers=[(on_paid, {"queue": "mails"})]), "keep a worker on that"),
    ("no declaration", lambda: deploy(None), "declares no payload any more"),
    ("not durable", lambda: deploy(durable=False), "durable is False"),
]


@pytest.mark.parametrize(("change", "said"), [each[1:] for each in BREAKING], ids=[each[0] for each in BREAKING])
def test_a_breaking_change_is_refused_with_the_remedy(lock, tmp_path: Path, change, said):
    """Neither check nor write lets it pass; it may be accepted."""
    deploy()
    lock("--write")
    before = (tmp_path / "signalbus.lock.json").read_bytes()
    change()
    with pytest.raises(CommandError, match=f"(?s)breaks: .*{said}"):
        lock("--check")
    with pytest.raises(CommandError, match="add --accept"):
        lock("--write")
    assert (tmp_path / "signalbus.lock.json").read_bytes() == before
    lock("--write", "--accept")


@pytest.mark.parametrize(("change", "said"), [each[1:] for each in HARMLESS], ids=[each[0] for each in HARMLESS])
def test_a_harmless_change_passes(lock, change, said):
    """It is named, and written without more ado."""
    deploy()
    lock("--write")
    change()
    with pytest.raises(AssertionError, match=f"harmless: .*{said}" if said else "Nothing breaks|The code is"):
        raise AssertionError(lock("--check"))
    lock("--write")
    assert "The code is as" in lock("--check")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"version": 2, "payload": Paid}, {"version": 1, "payload": Paid}, "has version 1, and had 2"),
        ({"version": 2, "payload": Paid}, {"payload": None}, "declares no payload any more, and did in version 2"),
        ({"was": ["tests.old"]}, {}, "no longer known as tests.old"),
        ({"receivers": [(on_paid, {"was": ["old"]})]}, {}, "is no longer known as old"),
    ],
    ids=["a lower version", "no version", "a former name", "a former id"],
)
def test_what_was_promised_before_is_kept(lock, before, after, said):
    """A version, and names of which messages may wait, do not just go."""
    deploy(**before)
    lock("--write", "--accept")
    deploy(**after)
    with pytest.raises(CommandError, match=said):
        lock("--check")


def test_samples_of_former_versions_are_kept(lock, tmp_path: Path):
    """The code does not know the class of version 1 any more; the file does, and runs its sample through the chain."""
    deploy()
    lock("--write")
    upcast(drop_note)()
    lock("--write")
    locked = json.loads((tmp_path / "signalbus.lock.json").read_text())["signals"][NAME]
    assert list(locked["versions"]) == ["1", "2"]
    assert "note" in locked["versions"]["1"]["sample"]
    upcast(lambda payload: {"number": None})()
    with pytest.raises(CommandError, match="the upcasts from version 1 fail on the stored sample"):
        lock("--check")


def test_the_system_check_tells_of_breaking_changes(lock, tmp_path: Path, settings, monkeypatch):
    """A developer sees them before CI does, also that the file cannot be read; without a file nothing is compared."""
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])
    settings.BASE_DIR = tmp_path

    def reports() -> list[str]:
        return [each.msg for each in check_lock_file() if each.id == "signalbus.W013"]

    deploy()
    assert reports() == []
    lock("--write")
    deploy(WithoutKey)
    assert reports() == [f"Since the lock file was written: {NAME} carries no note any more."]
    (tmp_path / "signalbus.lock.json").write_text("<<<<<<<")
    assert "has the marks of a merge conflict" in reports()[0]


def test_a_file_that_cannot_be_written_is_named(lock, tmp_path: Path):
    """The error says which, and why."""
    (tmp_path / "signalbus.lock.json").mkdir()
    with pytest.raises(CommandError, match=r"signalbus\.lock\.json cannot be written: .*directory"):
        lock("--write", "--accept")


def test_check_needs_a_file(lock):
    """A file that was never committed does not pass."""
    with pytest.raises(CommandError, match=r"There is no .*signalbus\.lock\.json: write it"):
        lock("--check")


def test_a_file_that_cannot_be_read_is_not_taken_for_none(lock, tmp_path: Path):
    """Neither a damaged file nor a newer format is overwritten."""
    file = tmp_path / "signalbus.lock.json"
    for text, said in (
        ("", "is no JSON"),
        ('{"format": 1, "signals": {', "is no JSON"),
        ('{"format": 99}', "has the format 99"),
        ("[]", "format None"),
        ("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n", "a merge conflict: keep the lines of both sides.*--write"),
    ):
        file.write_text(text)
        with pytest.raises(CommandError, match=said):
            lock("--write")
    lock("--write", "--accept")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as an editor on Windows saves it
    assert "The code is as" in lock("--check")
    file.unlink()
    file.mkdir()
    with pytest.raises(CommandError, match=r"signalbus\.lock\.json cannot be read: .*directory"):
        lock("--check")


PART = ("signals", NAME)
PAYLOAD = (*PART, "versions", "1", "payload")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("signals",), None),
        (("signals",), []),
        (PART, "text"),
        ((*PART, "durable"), None),
        ((*PART, "was"), "tests.old"),
        ((*PART, "was"), [1]),
        ((*PART, "receivers"), []),
        ((*PART, "receivers", "name"), "on_paid"),
        ((*PART, "receivers", "name"), {"sender": 1, "queue": None, "was": []}),
        ((*PART, "version"), "1"),
        ((*PART, "version"), 2),
        ((*PART, "versions"), None),
        ((*PART, "versions", "first"), {}),
        ((*PART, "versions", "1"), []),
        (PAYLOAD, None),
        ((*PAYLOAD, "properties"), None),
        ((*PAYLOAD, "properties", "number"), "integer"),
        ((*PAYLOAD, "properties", "number"), {"anyOf": 1}),
        ((*PAYLOAD, "properties", "number"), {"anyOf": ["integer"]}),
        ((*PAYLOAD, "properties", "number"), {"type": "array", "items": []}),
        ((*PAYLOAD, "properties", "number"), {"type": "object", "properties": {"a": 1}}),
        ((*PAYLOAD, "required"), "number"),
    ],
    ids=str,
)
def test_a_part_that_is_not_as_it_was_written_is_named(lock, tmp_path: Path, path, value):
    """A file that was edited by hand, or merged badly, is told as such; None stands for a part that is gone."""
    deploy()
    lock("--write")
    file = tmp_path / "signalbus.lock.json"
    locked = json.loads(file.read_text())
    part = locked
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    if value is None:
        del part[path[-1]]
    file.write_text(json.dumps(locked))
    with pytest.raises(CommandError, match="is not as signalbus wrote it: take the file from the repository again"):
        lock("--check")


def test_each_kind_of_class_has_the_same_schema():
    """The five kinds of classes declare the same."""
    schemas = [schema_of_payload(kind) for kind in (CohortSaved, CohortSavedAttrs, CohortSavedModel, CohortSavedStruct)]
    assert schemas[0] == {
        "type": "object",
        "properties": {
            "instance": {"x-model": "admissions.Cohort"},
            "created": {"type": "boolean", "default": False},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["instance"],
        "additionalProperties": False,
    }
    assert schemas[1:] == schemas[:1] * 3
    assert schema_of_payload(CohortSavedDict)["required"] == ["instance"]


@pytest.mark.parametrize("kind", [EveryType, Positive, Ordered, CohortSavedModel, CohortSavedStruct, CohortSavedDict])
def test_samples_fit_their_class(kind):
    """A sample is what `send` takes, unless nothing is known of a type: then there is none."""
    sample = sample_text(kind)
    assert (sample is None) == (kind is EveryType)
    contract = Contract(kind, 2)
    contract.add_upcast(1, lambda payload: payload)
    assert sample is None or fault_of_upcasts(contract, 1, sample) is None


@dataclass
class Node:
    """A part that holds itself."""

    name: str
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)


@dataclass
class Mail:
    """A part with a rule that no sample keeps."""

    address: str

    def __post_init__(self) -> None:
        if "@" not in self.address:
            raise LookupError("no address")


class Nothing(enum.Enum):
    """An enum without members."""


@dataclass
class Tree:
    root: Node


@dataclass
class Letter:
    to: Mail
    copies: list[Mail]


@dataclass
class Void:
    nothing: Nothing


@modify_settings(INSTALLED_APPS={"append": "tests.unit"})
def test_a_sample_of_a_class_that_holds_itself_ends():
    """It holds no further one."""
    sample = sample_text(Tree)
    assert sample == {"root": {"$data": [f"{__name__}:Node", {"name": "text", "parent": None, "children": []}]}}


@pytest.mark.parametrize("payload", [Letter, Void])
def test_a_class_of_which_no_object_can_be_made_has_no_sample(lock, payload):
    """A rule of a class in the payload refuses made-up values; the lock file is written without a sample."""
    deploy(payload)
    lock("--write")
    assert sample_text(payload) is None


@dataclass
class Unusual:
    """Values that JSON or UTF-8 cannot write, and a set of what no set can hold."""

    kind: Literal[b"a", "b", None] = b"a"
    ratio: float = float("nan")
    most: float = float("inf")
    text: str = "\ud800"
    letters: set[Mail] = field(default_factory=set)
    nodes: set[Node] = field(default_factory=set)


def test_defaults_and_literals_that_json_does_not_have_are_written(lock, tmp_path: Path):
    """The file is written, is JSON, and is the same the next time."""
    deploy(Unusual)
    lock("--write")
    before = (tmp_path / "signalbus.lock.json").read_bytes()
    lock("--write")
    assert (tmp_path / "signalbus.lock.json").read_bytes() == before
    properties = json.loads(before)["signals"][NAME]["versions"]["1"]["payload"]["properties"]
    assert properties["ratio"] == properties["most"] == {"type": "number"}
    assert properties["text"] == {"type": "string"}
    assert properties["kind"]["anyOf"][0] == {"enum": ["b", None]}
    assert "The code is as" in lock("--check")


class Part(TypedDict):
    """A part."""

    name: str


class Colour(enum.Enum):
    """An enum."""

    RED = 1


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, True),
        (float, 1),
        (complex, 1),
        (str, State.DONE),
        (Literal[State.DONE], State.DONE),
        (Literal[b"a", 1], b"a"),
        (Literal[b"a", 1], 1),
        (date, datetime(2000, 1, 2)),
        (Model, COHORT),
        (AbstractUser, saved(User, pk=7)),
        (Thing, saved(SpecialThing, pk=7)),
        (type, Cohort),
        (type[Model], Cohort),
        (list[int], [True]),
        (list[list[int]], [[], [1]]),
        (Iterable[int], {1}),
        (Mapping[str, int], {"a": 1}),
        (tuple, (1,)),
        (tuple[int, *tuple[str, ...]], (1, "a")),
        (tuple[int, ...], (1, 2)),
        (SupportsInt, 1),
        (Point, Place(1, 2)),
        (Address | None, {"street": "Elm"}),
    ],
    ids=str,
)
@modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"})
def test_the_deploy_gate_accepts_what_send_accepts(annotation, value):
    """A message that waits, and that a worker can run, does not stop a deploy."""
    check = check_of(annotation)
    assert check is None or check(value) is None
    shape = shape_of(*json.loads(codec.encode(None, {"key": value})[0])).schema
    assert first_misfit(shape["properties"]["key"], schema_of(annotation)) is None


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, "1"),
        (int, 1.5),
        (bool, 1),
        (int, State.DONE),
        (State, "done"),
        (datetime, date(2000, 1, 2)),
        (Academy, COHORT),
        (Model, 1),
        (Cohort, Cohort),
        (type[Academy], Cohort),
        (type, COHORT),
        (list[int], {1}),
        (tuple[int, str], (1,)),
        (dict[str, int], [1]),
        (Place, Point(1)),
    ],
    ids=str,
)
@modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"})
def test_the_deploy_gate_refuses_what_send_refuses(annotation, value):
    """A value of another type is found before the deploy."""
    check = check_of(annotation)
    assert check is not None
    assert check(value) is not None
    shape = shape_of(*json.loads(codec.encode(None, {"key": value})[0])).schema
    assert first_misfit(shape["properties"]["key"], schema_of(annotation)) is not None


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        (int, int, True),
        (int, float, True),
        (float, int, False),
        (int, int | None, True),
        (int | None, int, False),
        (int | None, str | int | None, True),
        (int, Any, True),
        (Any, int, False),
        (bool, int, False),  # a new value would arrive in a receiver that was written for the other
        (Literal["a"], Literal["a", "b"], True),
        (Literal["a"], str, True),
        (Literal[b"a"], bytes, True),
        (Literal[b"a"], str, False),
        (Literal[1], str, False),
        (str, Literal["a"], False),
        (Colour, Colour, True),
        (Colour, Literal["RED"], False),
        (list[int], list[float], True),
        (list[int], list[str], False),
        (list[int], set[int], False),
        (list[int], Sequence[int], True),
        (tuple[int, str], tuple[int, str], True),
        (tuple[int, str], tuple[int], False),
        (tuple[int, ...], tuple[int, ...], True),
        (dict[str, int], Mapping[str, float], True),
        (dict[str, int], dict[str, str], False),
        (Part, Part, True),
        (Part, dict[str, str], True),
        (Part, dict[str, int], False),
        (dict[str, str], Part, False),
        (Cohort, Cohort, True),
        (Cohort, Academy, False),
        (type[Cohort], type[Cohort], True),
        (datetime, str, False),
        (UUID, UUID, True),
        (Ordered, Ordered, True),
    ],
)
def test_schemas_tell_whether_values_fit(older, newer, expected):
    """Each value of the older type is one of the newer type."""
    assert (first_misfit(schema_of(older), schema_of(newer)) is None) is expected

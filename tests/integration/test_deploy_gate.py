"""The deploy gate: what waits is exported from the running system, and judged with the code of the next deploy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from signalbus import Signal
from signalbus.models import Delivery, State, StoredMessage
from signalbus.registration.registry import registry
from tasks.admissions.models import Academy, Cohort
from tests.other_servers import DATABASE

from .bus import Bus, connect, new_signal

ON_ONE = pytest.mark.parametrize("database", [DATABASE or "sqlite"])

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(kw_only=True)
class Paid:
    """What waits."""

    number: int
    secret: str = "hunter2"
    academy: Academy | None = None
    prices: dict[str, Decimal] | None = None
    pair: tuple[int, ...] = (1, 2)


@dataclass(kw_only=True)
class WithMore:
    """A new key with a default, and wider types."""

    number: int | str
    secret: str = "hunter2"
    academy: Academy | None = None
    prices: dict[str, Decimal] | None = None
    pair: tuple[int, ...] = ()
    more: int = 0


@dataclass(kw_only=True)
class WithRequiredKey:
    """A key that what waits does not have."""

    number: int
    secret: str
    currency: str
    academy: Academy | None = None
    prices: Any = None
    pair: Any = None


@dataclass(kw_only=True)
class Retyped:
    """A key of another type."""

    number: str
    secret: str
    academy: Academy | None = None
    prices: Any = None
    pair: Any = None


@dataclass(kw_only=True)
class OtherModel:
    """A row of another model."""

    number: int
    secret: str
    academy: Cohort | None = None
    prices: Any = None
    pair: Any = None


DEPLOYED: list[Signal] = []


def deploy(name: str, payload: Any = Paid, *, uid: str = "paid", receiver: Any = None, **options: Any) -> Signal:
    """Declare the signal as the code of a deploy does, in place of that of the deploy before."""
    for number, other in list(registry._signals.items()):
        if other in DEPLOYED:
            del registry._signals[number]
    registry._by_name.clear()
    DEPLOYED.clear()
    signal: Signal = Signal(name, payload=payload, **options)
    DEPLOYED.append(signal)
    if uid:
        connect(signal, receiver or (lambda sender, **kwargs: None), uid)
    return signal


@pytest.fixture
def name() -> Iterator[str]:
    """A new name."""
    yield new_signal().name
    DEPLOYED.clear()


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., str]:
    """A function that runs ``check`` on an export, and returns all that it says."""

    def check(*arguments: str) -> str:
        out, err = StringIO(), StringIO()
        try:
            call_command(
                "signalbus", "check", "--in-flight", str(tmp_path / "export"), *arguments, stdout=out, stderr=err
            )
        except CommandError as error:
            raise CommandError(f"{err.getvalue()}{error}") from error
        return err.getvalue() + out.getvalue()

    return check


def export(tmp_path: Path) -> dict[str, Any]:
    """Export what waits; return the file."""
    call_command("signalbus", "in-flight", "--export", str(tmp_path / "export"), stdout=StringIO())
    exported: dict[str, Any] = json.loads((tmp_path / "export").read_text())
    return exported


def send_three(name: str, **options: Any) -> None:
    """Send three messages with the code that is deployed."""
    academy = Academy.objects.create(name="4Geeks", slug="4geeks")
    signal = deploy(name, **options)
    for number in range(2):
        signal.send(None, number=number, academy=academy, prices={"EUR": Decimal(1)})
    signal.send(None, number=7)


PASSES: list[tuple[str, Callable[[str], Any]]] = [
    ("the same code", deploy),
    ("a new key and wider types", lambda name: deploy(name, WithMore)),
    ("no declaration", lambda name: deploy(name, None)),
    ("a renamed signal", lambda name: deploy(f"{name}.new", was=[name])),
    ("a new version", lambda name: deploy(name, Retyped, version=2).upcast(from_version=1)(lambda payload: payload)),
    ("another receiver beside it", lambda name: connect(deploy(name), lambda **kwargs: None, "another")),
]
REFUSED: list[tuple[str, Callable[[str], Any], str]] = [
    ("no signal", lambda name: deploy(f"{name}.new"), "this code has no such signal"),
    ("no receiver", lambda name: deploy(name, uid="renamed"), "this code has no such receiver"),
    ("a new required key", lambda name: deploy(name, WithRequiredKey), "has no currency, which version 1 requires"),
    ("another type", lambda name: deploy(name, Retyped), "its number is of another type than version 1"),
    ("another model", lambda name: deploy(name, OtherModel), "its academy is of another type than version 1"),
    ("no upcast", lambda name: deploy(name, Paid, version=2), "no upcast leads from version 1"),
    (
        "a receiver that requires another key",
        lambda name: deploy(name, None, receiver=lambda sender, course, **kwargs: None),
        "the receiver requires course, which the message does not have",
    ),
]


@ON_ONE
@pytest.mark.parametrize("change", [each[1] for each in PASSES], ids=[each[0] for each in PASSES])
def test_code_that_can_run_what_waits_passes(bus: Bus, name: str, gate, tmp_path: Path, change):
    """The exit code is 0."""
    send_three(name)
    export(tmp_path)
    change(name)
    assert gate() == "This code can run all of 3 deliveries that are due in time.\n"


@ON_ONE
@pytest.mark.parametrize(("change", "said"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_code_that_cannot_run_what_waits_is_refused(  # noqa: PLR0917 - fixtures and parameters
    bus: Bus, name: str, gate, tmp_path: Path, change, said
):
    """It says which deliveries, how many, when they are due, and why."""
    send_three(name)
    export(tmp_path)
    change(name)
    with pytest.raises(CommandError, match=f"(?s)of {name} to paid, due .*{said}.*could not run [123] of 3 deliveries"):
        gate()


@pytest.fixture
def locked(bus: Bus, name: str, tmp_path: Path, settings: Any) -> None:
    """Three messages of version 1 that wait, an export of them, and a lock file with a sample of them."""
    settings.BASE_DIR = tmp_path
    send_three(name)
    call_command("signalbus", "schema", "--write", stdout=StringIO())
    export(tmp_path)


@ON_ONE
@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("new_name", ["", ".new"])
@pytest.mark.parametrize(
    ("upcast", "said"),
    [(lambda payload: payload["gone"], "KeyError: 'gone'"), (lambda payload: payload, "number: .*takes str")],
    ids=["raises", "another type"],
)
def test_an_upcast_that_fails_on_the_sample_of_the_lock_file_is_refused(name: str, gate, upcast, said, new_name):
    """The exported file has no values: the sample stands for what waits, also of a signal that has a new name."""
    was = [name] if new_name else []
    deploy(f"{name}{new_name}", Retyped, version=2, was=was).upcast(from_version=1)(upcast)
    with pytest.raises(CommandError, match=f"(?s)from version 1 fail on its sample in the lock file: .*{said}"):
        gate()


@ON_ONE
@pytest.mark.usefixtures("locked")
def test_an_upcast_that_takes_the_sample_of_the_lock_file_passes(name: str, gate):
    """What waits arrives as version 2."""
    signal = deploy(name, Retyped, version=2)
    signal.upcast(from_version=1)(lambda payload: {**payload, "number": str(payload["number"])})
    assert gate() == "This code can run all of 3 deliveries that are due in time.\n"


def test_the_file_has_no_values(bus: Bus, name: str, tmp_path: Path):
    """Payloads may be personal data: only their shape leaves the database."""
    send_three(name)
    exported = export(tmp_path)
    assert "hunter2" not in json.dumps(exported)
    assert sum(sum(group["due"].values()) for group in exported["groups"]) == 3
    assert len(exported["groups"]) == 2
    assert ["model", "admissions.Academy"] in exported["groups"][0]["names"]


@ON_ONE
def test_the_database_is_not_asked(bus: Bus, name: str, gate, tmp_path: Path, django_assert_num_queries):
    """CI has the file, and no ledger."""
    send_three(name)
    export(tmp_path)
    with django_assert_num_queries(0):
        gate()


def test_what_is_due_late_is_a_warning(bus: Bus, name: str, gate, tmp_path: Path):
    """A message of next year does not stop a deploy today; the horizon may be moved."""
    deploy(name).send_later(timedelta(days=200), None, number=1)
    export(tmp_path)
    deploy(name, Retyped)
    said = gate()
    assert said.startswith(f"warning: 1 of {name} to paid, due ")
    assert "This code can run all of 1 deliveries that are due in time." in said
    with pytest.raises(CommandError, match="could not run 1 of 1"):
        gate("--horizon", "300")


@ON_ONE
def test_what_has_ended_is_not_judged(bus: Bus, name: str, gate, tmp_path: Path):
    """Only what still runs counts."""
    send_three(name)
    bus.work()
    export(tmp_path)
    deploy(f"{name}.new")
    assert "all of 0 deliveries" in gate()


@ON_ONE
def test_newer_and_unread_texts_are_told(bus: Bus, name: str, gate, tmp_path: Path):
    """A text of a newer format is judged by that; one that nobody could read is counted."""
    send_three(name)
    first, second, _ = StoredMessage.objects.order_by("id")
    StoredMessage.objects.filter(pk=first.pk).update(text=f"99{first.text[1:]}")
    StoredMessage.objects.filter(pk=second.pk).update(sealed=True)
    export(tmp_path)
    with pytest.raises(CommandError, match=r"(?s)text has version 99.*1 texts could not be read.*could not run 1 of 2"):
        gate()


@ON_ONE
def test_a_model_that_is_gone_is_told(bus: Bus, name: str, gate, tmp_path: Path):
    """A message names its rows' models; this code must have them."""
    send_three(name)
    exported = json.dumps(export(tmp_path)).replace("admissions.Academy", "admissions.Gone")
    (tmp_path / "export").write_text(exported)
    deploy(name, None)
    with pytest.raises(CommandError, match=r"admissions\.Gone"):
        gate()


@ON_ONE
def test_a_carrier_that_is_gone_is_told(bus: Bus, name: str, gate, tmp_path: Path):
    """A worker without it would park the message."""
    with override_settings(SIGNALBUS={"CARRY": ["signalbus.carriers.Language"]}):
        send_three(name)
        export(tmp_path)
        gate()
    with pytest.raises(CommandError, match="the carrier 'language'"):
        gate()


@ON_ONE
def test_programs_get_an_object(bus: Bus, name: str, gate, tmp_path: Path):
    """``--json`` has the same facts."""
    deploy(name).send_later(timedelta(days=200), None, number=1)
    export(tmp_path)
    deploy(name, Retyped)
    shown = json.loads(gate("--json"))
    assert (shown["deliveries"], shown["soon"], shown["unread"]) == (1, 0, 0)
    (stranded,) = shown["stranded"]
    assert (stranded["signal"], stranded["receiver"], stranded["later"]) == (name, "paid", 1)


@ON_ONE
def test_a_file_of_another_kind_is_an_error(bus: Bus, gate, tmp_path: Path):
    """Nothing passes for want of a file."""
    with pytest.raises(CommandError, match="cannot be written"):
        call_command("signalbus", "in-flight", "--export", str(tmp_path))
    with pytest.raises(CommandError, match="cannot be read"):
        gate()
    (tmp_path / "export").write_text("{}")
    with pytest.raises(CommandError, match="was not written by"):
        gate()
    whole = {"format": 1, "exported_at": "2000-01-02T03:04:05+00:00", "groups": [{"due": {"2000-01-02": 1}}]}
    damages: list[dict[str, Any]] = [
        {},
        {"exported_at": "yesterday", "groups": []},
        {"groups": {}},
        {"groups": [{"receiver": "", "example": "1", "due": {"tomorrow": 1}}]},
        {"groups": [{"receiver": "", "example": "1", "due": {}, "text_version": 6}]},
        {"groups": [{"receiver": "", "example": "1", "due": {"2000-01-02": 1}, "text_version": 6}]},
    ]
    for damage in damages:
        (tmp_path / "export").write_text(json.dumps({**whole, **damage}))
        with pytest.raises(CommandError, match="is not as signalbus wrote it: export it again"):
            gate()


@ON_ONE
def test_ten_thousand_rows_are_exported_and_judged(bus: Bus, name: str, gate, tmp_path: Path):
    """A large ledger becomes a small file, and each of the breaking changes is found in it."""
    signal = deploy(name)
    signal.send_many(None, [{"number": number, "prices": {"EUR": Decimal(number)}} for number in range(10_000)])
    exported = export(tmp_path)
    for _, change, said in REFUSED:
        if "academy" not in said:  # which these messages do not name
            change(name)
            with pytest.raises(CommandError, match="could not run 10000 of 10000"):
                gate()
    assert len(exported["groups"]) == 1
    assert Delivery.objects.filter(state=State.PUBLISHED).count() == 10_000

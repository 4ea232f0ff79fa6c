"""The rows that a message names: recorded at `send()`, and found by `history`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from signalbus import Signal, Snapshot
from signalbus.models import StoredMessage
from signalbus.services.queries.lookup import history_of
from signalbus.wire.message import from_body
from signalbus.wire.subjects import subjects_in
from tasks.admissions.models import Academy

from .bus import Bus, connect, new_signal
from .test_inspecting import run

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def signal(bus: Bus) -> Signal:
    """A durable signal with a receiver."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    return signal


@pytest.fixture
def academies(bus: Bus) -> list[Academy]:
    """Twelve rows."""
    return [Academy.objects.create(name=f"A{number}", slug=f"a{number}") for number in range(12)]


def name(row: Academy) -> str:
    """Return the name of a row in the ledger."""
    return f"admissions.Academy {row.pk}"


PAYLOADS: dict[str, Callable[[list[Academy]], tuple[dict[str, Any], list[int]]]] = {
    "none": lambda rows: ({"number": 1}, []),
    "the instance": lambda rows: ({"instance": rows[3]}, [3]),
    "the first row, if there is no instance": lambda rows: ({"academy": rows[3], "other": rows[1]}, [3, 1]),
    "the instance before others": lambda rows: ({"academy": rows[3], "instance": rows[1]}, [1, 3]),
    "each row once": lambda rows: ({"instance": rows[3], "before": rows[3], "other": rows[1]}, [3, 1]),
    "rows in containers": lambda rows: ({"all": [rows[0], {"a": rows[2]}]}, [0, 2]),
    "an instance as a snapshot": lambda rows: ({"instance": Snapshot(rows[3]), "other": rows[1]}, [3, 1]),
    "eight at most": lambda rows: ({"instance": rows[9], "all": rows}, [9, 0, 1, 2, 3, 4, 5, 6]),
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_a_message_records_the_rows_that_it_names(bus: Bus, signal: Signal, academies: list[Academy], case: str):
    """The first one is its subject; the text of the message gives the same, but for a snapshot."""
    payload, expected = PAYLOADS[case](academies)

    signal.send(Academy, **payload)

    row = StoredMessage.objects.get()
    names = [name(academies[number]) for number in expected]
    assert row.subject == (names[0] if names else "")
    assert (row.more_subjects or "").splitlines() == names[1:]
    if "snapshot" not in case:
        assert subjects_in(from_body(row.text).payload) == (row.subject, row.more_subjects)


def test_many_messages_each_record_their_rows(bus: Bus, signal: Signal, academies: list[Academy]):
    """One statement inserts messages with and without further rows."""
    first, second = academies[:2]
    payloads: list[dict[str, Any]] = [{"instance": first}, {"a": first, "b": second}, {"number": 1}] * 20

    signal.send_many(None, payloads)

    rows = StoredMessage.objects.order_by("id").values_list("subject", "more_subjects")
    assert list(rows) == [(name(first), None), (name(first), name(second)), ("", None)] * 20


def test_a_worker_names_the_rows_of_what_had_no_row(bus: Bus, academies: list[Academy]):
    """Failures of signals that are not durable are found by what they are about, too."""
    signal = new_signal()
    connect(signal, lambda **kwargs: 1 / 0, "failing")
    signal.send(None, one=academies[0], instance=academies[1])
    assert not StoredMessage.objects.exists()
    bus.work()

    row = StoredMessage.objects.get()
    assert (row.subject, row.more_subjects) == (name(academies[1]), name(academies[0]))


@pytest.mark.parametrize("text", ["", "{", "[]", "[null,[]]", '[null,{"a":{"$ref":[]}}]', '[null,{"a":{"$ref":7}}]'])
def test_bad_input_a_payload_that_cannot_be_read_names_no_rows(text: str):
    """A later version, or a cut by hand: the worker says so elsewhere."""
    assert subjects_in(text) == ("", None)


def test_a_key_with_a_type_of_its_own_is_named_by_its_text():
    """The same text as at `send()`."""
    payload = (
        '[null,{"a":{"$ref":["x.Y",{"$uuid":"0c5b2f3e7c1e5a578a3d1c2d3e4f5a6b"}]},"b":{"$row":["x.Z",7,"other",null]}}]'
    )

    first, more = subjects_in(payload)

    assert (first, more) == ("x.Y 0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b", "x.Z 7")


def test_history_finds_each_message_that_names_a_row(bus: Bus, signal: Signal, academies: list[Academy]):
    """As its instance, or beside another row; in the order of sending; a key that begins alike is another row."""
    one, ten = academies[0], Academy.objects.create(pk=academies[0].pk * 100 + 1, name="B", slug="b")
    ids = [
        signal.send(None, instance=one).id,
        signal.send(None, instance=ten, other=academies[1]).id,
        signal.send(None, instance=academies[1], other=one).id,
        signal.send(None, instance=academies[1], all=[ten, academies[2]]).id,
        signal.send(None, instance=academies[1], all=[academies[2], one]).id,
    ]

    found = history_of(f"admissions.academy:{one.pk}")

    assert [each.row.pk for each in found.messages] == [ids[0], ids[2], ids[4]]
    assert (found.has_more, found.searched_from) == (False, None)
    assert [each.row.pk for each in history_of(f"admissions.academy:{ten.pk}").messages] == [ids[1], ids[3]]
    youngest = history_of(f"admissions.academy:{one.pk}", limit=2)
    assert ([each.row.pk for each in youngest.messages], youngest.has_more) == ([ids[2], ids[4]], True)


def test_history_says_how_far_it_looked_for_further_rows(
    bus: Bus, signal: Signal, academies: list[Academy], monkeypatch: pytest.MonkeyPatch
):
    """The rows that are not the first are looked for among the youngest messages; the first ones among all."""
    one, other = academies[:2]
    old = [signal.send(None, instance=other, second=one).id, signal.send(None, instance=one).id]
    young = [signal.send(None, instance=other, second=one).id, signal.send(None, number=1).id]

    found = history_of(f"admissions.academy:{one.pk}", scanned=2)

    assert [each.row.pk for each in found.messages] == [old[1], young[0]]
    assert found.searched_from == StoredMessage.objects.get(pk=str(young[0])).created_at
    monkeypatch.setattr("signalbus.management.subcommands.deliveries.inspecting.history_of", lambda subject: found)
    assert "beside another row were looked for among the youngest 100,000, since 20" in run("history", "a.b:1")
    assert json.loads(run("history", f"admissions.academy:{one.pk}", "--json").rpartition("}")[0] + "}")[
        "searched_from"
    ]


def test_history_of_a_row_that_no_message_names(bus: Bus, signal: Signal, academies: list[Academy]):
    """The exit code is 1, and the error says why that may be."""
    signal.send(None, instance=academies[0])
    with pytest.raises(CommandError, match="not among the first 8 of its payload"):
        run("history", f"admissions.academy:{academies[1].pk}")


def test_one_row_costs_no_column(bus: Bus, signal: Signal, academies: list[Academy]):
    """Only a message with two rows or more names the column of the others."""
    with transaction.atomic(), CaptureQueriesContext(connection) as one:
        signal.send(None, instance=academies[0], before=academies[0])
    with transaction.atomic(), CaptureQueriesContext(connection) as two:
        signal.send(None, instance=academies[0], other=academies[1])

    assert not any("more_subjects" in each["sql"] for each in one)
    assert any("more_subjects" in each["sql"] for each in two)
    assert len(one) == len(two)

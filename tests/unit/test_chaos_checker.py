"""The chaos suite's checker finds each kind of fault, and reports no other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.chaos import journal, report
from tests.chaos.checker import Effect, Evidence, delay_figures, judge
from tests.chaos.expectations import EVERYTHING, HOLDS, TIMES, Bound, broken, without_times
from tests.chaos.journal import Journal, Notes
from tests.chaos.report import Result
from tests.chaos.roles import RECIPIENTS

if TYPE_CHECKING:
    from pathlib import Path

RECORD = RECIPIENTS["steady"][0]
BESIDE, OUTSIDE = RECIPIENTS["paired"]
KILLER = RECIPIENTS["deadly"][0]


def evidence(
    kind: str = "steady", *, acknowledged=True, committed=True, effects=(RECORD,), states=None, at=12.5
) -> Evidence:
    """Return the evidence of one message, m, sent at 10.0, without a fault."""
    notes = Notes(sent={"m": (kind, 10.0)}, acknowledged={"m": 10.1} if acknowledged else {})
    return Evidence(
        notes=notes,
        committed=frozenset({"m"} if committed else ()),
        effects=[Effect("m", receiver, at) for receiver in effects],
        states={("m", receiver): state for receiver, state in (states or {}).items()},
    )


def faults(verdict) -> dict[str, set[tuple[str, str]]]:
    """Return the verdict's sets that are not empty, without the owed deliveries."""
    names = ("lost", "duplicate", "repeated", "phantom", "stuck", "dead")
    return {name: found for name in names if (found := getattr(verdict, name))}


def test_one_effect_for_each_receiver_is_right():
    """A message that was acknowledged and has one effect is owed, and has no fault."""
    verdict = judge(evidence("paired", effects=(BESIDE, OUTSIDE)))

    assert verdict.owed == {("m", BESIDE), ("m", OUTSIDE)}
    assert faults(verdict) == {}


def test_a_missing_effect_is_lost():
    """A delivery is lost if it was acknowledged, has no effect, and is unknown to the ledger."""
    assert faults(judge(evidence(effects=()))) == {"lost": {("m", RECORD)}}


def test_effects_are_counted_for_each_receiver():
    """An effect of one receiver does not count for another."""
    assert faults(judge(evidence("paired", effects=(OUTSIDE,)))) == {"lost": {("m", BESIDE)}}


def test_a_row_that_says_done_without_an_effect_is_lost():
    """The ledger's state does not count as an effect."""
    assert faults(judge(evidence(effects=(), states={RECORD: "done"}))) == {"lost": {("m", RECORD)}}


def test_a_committed_message_is_owed_without_acknowledgement():
    """The sender died between its commit and its next step."""
    assert faults(judge(evidence(acknowledged=False, effects=()))) == {"lost": {("m", RECORD)}}


def test_an_acknowledged_message_is_owed_without_its_row():
    """A commit that the database loses is a loss."""
    assert faults(judge(evidence(committed=False, effects=()))) == {"lost": {("m", RECORD)}}


def test_an_uncommitted_message_is_not_owed():
    """A sender that died before its commit, or whose commit raised, owes nothing."""
    verdict = judge(evidence(acknowledged=False, committed=False, effects=()))

    assert (verdict.owed, faults(verdict)) == (set(), {})


def test_an_effect_of_an_uncommitted_message_is_a_phantom():
    """The message was rolled back or never committed, and still delivered."""
    assert faults(judge(evidence(acknowledged=False, committed=False))) == {"phantom": {("m", RECORD)}}


def test_an_effect_of_an_unknown_message_is_a_phantom():
    """No sender knows the message."""
    found = judge(Evidence(Notes(), frozenset(), [Effect("x", RECORD, 1.0)], {}))

    assert found.phantom == {("x", RECORD)}


def test_two_effects_of_an_atomic_receiver_are_a_duplicate():
    """The receiver's writes and its receipt must be there once."""
    assert faults(judge(evidence(effects=(RECORD, RECORD)))) == {"duplicate": {("m", RECORD)}}


def test_two_effects_without_atomic_are_repeated():
    """They are reported, not judged, because such a receiver may run twice."""
    found = judge(evidence("paired", effects=(BESIDE, OUTSIDE, OUTSIDE)))

    assert faults(found) == {"repeated": {("m", OUTSIDE)}}


@pytest.mark.parametrize("state", ["pending", "parked", "published", "running"])
def test_an_open_delivery_is_stuck(state: str):
    """It is not lost, because it has a row; but the run is over, and it is not done."""
    assert faults(judge(evidence(effects=(), states={RECORD: state}))) == {"stuck": {("m", RECORD)}}


def test_an_open_row_with_an_effect_is_stuck():
    """It has its effect, and will run again."""
    assert faults(judge(evidence(states={RECORD: "published"}))) == {"stuck": {("m", RECORD)}}


@pytest.mark.parametrize("state", ["dead", "skipped", "discarded"])
def test_a_dead_delivery_is_not_lost(state: str):
    """It is listed; but it could have succeeded."""
    assert faults(judge(evidence(effects=(), states={RECORD: state}))) == {"dead": {("m", RECORD)}}


def test_a_poison_message_may_be_dead():
    """It cannot end in another way."""
    states = dict.fromkeys(RECIPIENTS["deadly"], "dead")

    assert faults(judge(evidence("deadly", effects=(), states=states))) == {}


def test_a_poison_message_can_be_lost():
    """It must end visibly, too."""
    states = dict.fromkeys(RECIPIENTS["deadly"][1:], "dead")

    assert faults(judge(evidence("deadly", effects=(), states=states))) == {"lost": {("m", KILLER)}}


def test_the_delay_is_that_of_the_first_effect():
    """A duplicate does not make a delivery later."""
    found = evidence(effects=(RECORD,))
    later = Evidence(found.notes, found.committed, [*found.effects, Effect("m", RECORD, 99.0)], {})

    assert judge(later).delays == {("m", RECORD): 2.5}


def test_percentiles_are_measured_values():
    """A percentile is the nearest rank, not a value between two."""
    assert delay_figures(range(1, 201)) == {"p50": 100, "p99": 198, "max": 200}
    assert delay_figures([3.0]) == {"p50": 3.0, "p99": 3.0, "max": 3.0}
    assert delay_figures([]) == {}


def test_a_journal_is_read_back(tmp_path: Path):
    """Entries of several processes are grouped by kind, whatever an error's text contains."""
    path = tmp_path / "journal"
    first, second = Journal(path), Journal(path)
    first.note("sent", "m", "steady")
    second.note("raised", "Error: a\ttab\nand a line")
    first.note("acknowledged", "m")
    second.note("ran", "m", KILLER)
    first.note("rolled back", "n")
    first.note("waited", 0.25)

    notes = journal.read(path)

    assert notes.sent["m"][0] == "steady"
    assert notes.sent["m"][1] <= notes.acknowledged["m"]
    assert (notes.raised, notes.runs) == (["Error: a tab and a line"], [("m", KILLER)])
    assert (notes.rolled_back, notes.waits) == ({"n"}, [0.25])


def test_an_incomplete_line_is_read_later(tmp_path: Path):
    """A reader takes whole lines only."""
    path = tmp_path / "journal"
    path.write_text("acknowledged\t1.0\tm\nacknowledged\t2.0\tn")

    assert journal.read(path).acknowledged == {"m": 1.0}


def test_an_unknown_line_is_an_error(tmp_path: Path):
    """A line that no process writes is an error of the suite, and is not skipped."""
    path = tmp_path / "journal"
    path.write_text("hearsay\t1.0\tm\n")

    with pytest.raises(ValueError, match="nobody writes"):
        journal.read(path)


def test_a_broken_bound_is_named():
    """Each figure outside of its bound is reported, with both."""
    bounds = {"lost": Bound(most=0), "ratio": Bound(least=0.95), "max": Bound(most=30)}

    assert broken(bounds, {"lost": 1, "ratio": 0.5, "max": 2}) == ["lost 1, at most 0", "ratio 0.5, at least 0.95"]


def test_the_short_form_judges_no_times():
    """It judges each count that the long form judges."""
    for bounds in HOLDS.values():
        assert EVERYTHING.items() <= without_times(bounds).items()
        assert not TIMES & without_times(bounds).keys()


def test_a_missing_figure_breaks_its_bound():
    """A run without a measurement proves nothing."""
    assert broken({"p99": Bound(most=1)}, {}) == ["p99 was not measured"]


def test_a_verdict_names_examples():
    """With these ids a loss can be looked up."""
    verdict = judge(evidence("paired", effects=(BESIDE, BESIDE)))

    assert verdict.examples() == {"lost": [f"m to {OUTSIDE}"], "duplicate": [f"m to {BESIDE}"]}
    assert verdict.figures()["lost"] == verdict.figures()["duplicate"] == 1


def test_a_delivery_on_the_broker_is_stuck():
    """Without a row and an effect, but still on a queue, it is late and not lost."""
    found = evidence(effects=())

    assert faults(judge(replace(found, held=frozenset({"m"})))) == {"stuck": {("m", RECORD)}}


def test_a_delivery_on_the_broker_may_be_done():
    """A delivery that is done and not yet acknowledged is in both for a while."""
    assert faults(judge(replace(evidence(), held=frozenset({"m"})))) == {}


def test_a_run_in_pieces_makes_one_report(tmp_path: Path, capsys):
    """The results of all pieces are in one table."""
    rows = [
        Result("combined", "all at once", "sqlite", 3, figures={"owed": 7, "lost": 0, "p99": 1.25}),
        Result("combined", "all at once", "postgres", 4, figures={"owed": 9, "lost": 1}, broken=["lost 1, at most 0"]),
    ]
    paths = [tmp_path / f"{row.database}.json" for row in rows]
    for path, row in zip(paths, rows, strict=True):
        report.write(path, [row], [], seed=1)

    report.main([str(path) for path in paths])

    printed = capsys.readouterr().out
    assert "| all at once | sqlite | 3 | 7 | 0 |" in printed
    assert "lost 1, at most 0" in printed
    assert report.read(paths) == (rows, [])

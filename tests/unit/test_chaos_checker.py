"""The chaos suite's checker can fail: each kind of wrong is found, and nothing else is called wrong."""

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
    """One message, m, sent at 10.0; by default all is well with it."""
    notes = Notes(sent={"m": (kind, 10.0)}, acknowledged={"m": 10.1} if acknowledged else {})
    return Evidence(
        notes=notes,
        committed=frozenset({"m"} if committed else ()),
        effects=[Effect("m", receiver, at) for receiver in effects],
        states={("m", receiver): state for receiver, state in (states or {}).items()},
    )


def faults(verdict) -> dict[str, set[tuple[str, str]]]:
    """The verdict's sets that are not empty, but for what was owed."""
    names = ("lost", "duplicate", "repeated", "phantom", "stuck", "dead")
    return {name: found for name in names if (found := getattr(verdict, name))}


def test_one_effect_for_each_receiver_is_right():
    """What was acknowledged and left one effect is owed, and nothing is wrong with it."""
    verdict = judge(evidence("paired", effects=(BESIDE, OUTSIDE)))

    assert verdict.owed == {("m", BESIDE), ("m", OUTSIDE)}
    assert faults(verdict) == {}


def test_no_effect_is_lost():
    """Acknowledged, without an effect, and unknown to the ledger: lost."""
    assert faults(judge(evidence(effects=()))) == {"lost": {("m", RECORD)}}


def test_each_receiver_counts():
    """An effect of one receiver does not stand for another's."""
    assert faults(judge(evidence("paired", effects=(OUTSIDE,)))) == {"lost": {("m", BESIDE)}}


def test_a_row_that_says_done_without_an_effect_is_lost():
    """The ledger's word does not stand for the effect."""
    assert faults(judge(evidence(effects=(), states={RECORD: "done"}))) == {"lost": {("m", RECORD)}}


def test_what_was_committed_is_owed_though_nobody_acknowledged_it():
    """A sender that died between its commit and its next step had sent."""
    assert faults(judge(evidence(acknowledged=False, effects=()))) == {"lost": {("m", RECORD)}}


def test_what_was_acknowledged_is_owed_though_the_database_forgot_it():
    """A commit that the database loses is a loss."""
    assert faults(judge(evidence(committed=False, effects=()))) == {"lost": {("m", RECORD)}}


def test_what_nobody_committed_is_not_owed():
    """A sender that died before its commit, or whose commit raised, owes nothing."""
    verdict = judge(evidence(acknowledged=False, committed=False, effects=()))

    assert (verdict.owed, faults(verdict)) == (set(), {})


def test_an_effect_of_what_was_never_committed_is_a_phantom():
    """Rolled back, or never committed, and yet delivered."""
    assert faults(judge(evidence(acknowledged=False, committed=False))) == {"phantom": {("m", RECORD)}}


def test_an_effect_of_what_was_never_sent_is_a_phantom():
    """Nobody knows this message."""
    found = judge(Evidence(Notes(), frozenset(), [Effect("x", RECORD, 1.0)], {}))

    assert found.phantom == {("x", RECORD)}


def test_two_effects_of_an_atomic_receiver_are_a_duplicate():
    """What it wrote with its receipt must be there once."""
    assert faults(judge(evidence(effects=(RECORD, RECORD)))) == {"duplicate": {("m", RECORD)}}


def test_two_effects_of_one_that_is_not_atomic_are_counted_apart():
    """Nobody promises once for them; they are told, not judged."""
    found = judge(evidence("paired", effects=(BESIDE, OUTSIDE, OUTSIDE)))

    assert faults(found) == {"repeated": {("m", OUTSIDE)}}


@pytest.mark.parametrize("state", ["pending", "parked", "published", "running"])
def test_what_is_still_open_is_stuck(state: str):
    """Not lost, for a row remembers it; but the run is over, and it is not done."""
    assert faults(judge(evidence(effects=(), states={RECORD: state}))) == {"stuck": {("m", RECORD)}}


def test_an_open_row_with_an_effect_is_stuck():
    """Its effect is there, and it will run again."""
    assert faults(judge(evidence(states={RECORD: "published"}))) == {"stuck": {("m", RECORD)}}


@pytest.mark.parametrize("state", ["dead", "skipped", "discarded"])
def test_a_visible_end_is_not_a_loss(state: str):
    """It can be listed; but it could have succeeded."""
    assert faults(judge(evidence(effects=(), states={RECORD: state}))) == {"dead": {("m", RECORD)}}


def test_dead_is_how_a_poison_message_ends():
    """Nothing else can come of it."""
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


def test_percentiles_are_values_that_were_measured():
    """The nearest rank, and nothing between two values."""
    assert delay_figures(range(1, 201)) == {"p50": 100, "p99": 198, "max": 200}
    assert delay_figures([3.0]) == {"p50": 3.0, "p99": 3.0, "max": 3.0}
    assert delay_figures([]) == {}


def test_a_journal_is_read_as_it_was_written(tmp_path: Path):
    """What several processes note comes back by fact, whatever was in the error's text."""
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


def test_a_line_under_way_is_left_for_later(tmp_path: Path):
    """A reader that comes in between takes whole lines only."""
    path = tmp_path / "journal"
    path.write_text("acknowledged\t1.0\tm\nacknowledged\t2.0\tn")

    assert journal.read(path).acknowledged == {"m": 1.0}


def test_a_journal_holds_nothing_else(tmp_path: Path):
    """A line that nobody writes is an error of the suite, and not skipped."""
    path = tmp_path / "journal"
    path.write_text("hearsay\t1.0\tm\n")

    with pytest.raises(ValueError, match="nobody writes"):
        journal.read(path)


def test_a_broken_bound_is_named():
    """Each figure outside its bound is told, with both."""
    bounds = {"lost": Bound(most=0), "ratio": Bound(least=0.95), "max": Bound(most=30)}

    assert broken(bounds, {"lost": 1, "ratio": 0.5, "max": 2}) == ["lost 1, at most 0", "ratio 0.5, at least 0.95"]


def test_what_must_hold_on_any_machine_is_no_time():
    """The short form judges each count that the long one judges, and no time."""
    for bounds in HOLDS.values():
        assert EVERYTHING.items() <= without_times(bounds).items()
        assert not TIMES & without_times(bounds).keys()


def test_a_figure_that_was_not_measured_breaks_its_bound():
    """A run that measured nothing has shown nothing."""
    assert broken({"p99": Bound(most=1)}, {}) == ["p99 was not measured"]


def test_a_verdict_names_some_of_what_is_wrong():
    """Who reads the report can look a loss up."""
    verdict = judge(evidence("paired", effects=(BESIDE, BESIDE)))

    assert verdict.examples() == {"lost": [f"m to {OUTSIDE}"], "duplicate": [f"m to {BESIDE}"]}
    assert verdict.figures()["lost"] == verdict.figures()["duplicate"] == 1


def test_what_the_broker_still_holds_is_stuck():
    """Without a row and without an effect, but on a queue still: late, and not lost."""
    found = evidence(effects=())

    assert faults(judge(replace(found, held=frozenset({"m"})))) == {"stuck": {("m", RECORD)}}


def test_what_the_broker_still_holds_may_be_done():
    """What was done and not yet acknowledged is there twice for a while."""
    assert faults(judge(replace(evidence(), held=frozenset({"m"})))) == {}


def test_a_run_in_pieces_makes_one_report(tmp_path: Path, capsys):
    """What each piece wrote stands in one table, broken or not."""
    rows = [
        Result("siege", "all at once", "sqlite", 3, figures={"owed": 7, "lost": 0, "p99": 1.25}),
        Result("siege", "all at once", "postgres", 4, figures={"owed": 9, "lost": 1}, broken=["lost 1, at most 0"]),
    ]
    paths = [tmp_path / f"{row.database}.json" for row in rows]
    for path, row in zip(paths, rows, strict=True):
        report.write(path, [row], [], seed=1)

    report.main([str(path) for path in paths])

    printed = capsys.readouterr().out
    assert "| all at once | sqlite | 3 | 7 | 0 |" in printed
    assert "lost 1, at most 0" in printed
    assert report.read(paths) == (rows, [])

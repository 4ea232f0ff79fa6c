"""The answers of ``make drill``: what a command must say, what a question may cost, and the table in a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.drill.answers import BEGIN, END, MOST_SECONDS, MOST_STARTS, Answers, Question, WrongAnswer, write_table

if TYPE_CHECKING:
    from pathlib import Path


def question(**values: object) -> Question:
    """Return a question with an output."""
    asked = Question("a bug", "notice", {}, commands=["status"])
    for name, value in values.items():
        setattr(asked, name, value)
    return asked


def test_an_answer_is_read_from_the_output_of_the_last_command():
    """A pattern that is not there is a wrong answer, with the output as evidence."""
    asked = question(_output="3 failed\n0 dead\n")

    assert asked.read(r"^(\d+) failed", r"^(\d+) dead$")[1] == "0"
    assert asked.read_all(r"^(\d+) \w+$") == ["3", "0"]
    with pytest.raises(WrongAnswer, match=r"status does not say '\^4'; it printed\n3 failed"):
        asked.read("^4")


def test_a_question_takes_two_commands_and_ten_seconds_at_most():
    """On a machine on which a command starts slowly, some starts are allowed instead."""
    quick, slow, long = question(seconds=MOST_SECONDS), question(seconds=MOST_SECONDS + 1), question(commands=["a"] * 3)
    for each in (quick, slow, long):
        each.judge(start=0.5)

    assert quick.faults == []
    assert slow.faults == ["11.0 s, at most 10.0 s"]
    assert long.faults == ["3 commands, at most 2"]
    patient = question(seconds=MOST_STARTS * 3.0)
    patient.judge(start=3.0)
    assert patient.faults == []


def test_a_wrong_answer_stays_in_the_table(capsys: pytest.CaptureFixture[str]):
    """The drill ends there, and its table shows where."""
    answers = Answers()

    with pytest.raises(WrongAnswer), answers.question("a bug", "notice", {}) as asked:
        asked.commands.append("status")
        asked._output = "nothing"
        asked.read("failed")

    assert answers.faults == ["a bug, notice: status does not say 'failed'; it printed\nnothing"]
    assert "| a bug | notice | `status` | 0.0 | WRONG: status does not say 'failed'; it printed |" in answers.table()
    assert "WRONG" in capsys.readouterr().out


def test_the_table_replaces_what_is_between_two_marks(tmp_path: Path):
    """The rest of the document stays."""
    document = tmp_path / "page.md"
    document.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")

    write_table(document, ["| new |"])

    assert document.read_text() == f"before\n\n{BEGIN}\n\n| new |\n\n{END}\n\nafter\n"
    document.write_text("nothing")
    with pytest.raises(ValueError, match="has no lines"):
        write_table(document, [])

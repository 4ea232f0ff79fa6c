"""Ask the questions of an incident with the commands of an operator, and keep the answers, their costs and faults."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.servers import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

MOST_COMMANDS = 2  # for a question
MOST_SECONDS = 10.0  # for a question
# A machine that has much else to do starts a process slowly: as many starts of a command are allowed instead.
MOST_STARTS = 8.0
BEGIN, END = "<!-- make drill: begin -->", "<!-- make drill: end -->"


def most_seconds(start: float) -> float:
    """Return the seconds that an answer may take.

    Args:
        start: seconds that a command takes to start now.
    """
    return max(MOST_SECONDS, MOST_STARTS * start)


class WrongAnswer(AssertionError):
    """A command did not say what it must say; the text has its output."""


@dataclass(slots=True)
class Question:
    """A question of an incident, and its answer.

    Args:
        incident: what happened.
        asked: the question.
        environment: what differs from this process's environment for a command.
        commands: what was typed.
        seconds: what the commands took together.
        answer: the answer, out of the commands' output.
        faults: what is wrong with it.
    """

    incident: str
    asked: str
    environment: Mapping[str, str]
    commands: list[str] = field(default_factory=list)
    seconds: float = 0.0
    answer: str = ""
    faults: list[str] = field(default_factory=list)
    _output: str = ""

    def run(self, *words: str, allowed: Sequence[int] = (0,)) -> int:
        """Run ``manage.py signalbus …`` in a process of its own.

        Args:
            words: what stands after ``signalbus``.
            allowed: the exit codes that it may have.

        Returns:
            Its exit code.

        Raises:
            WrongAnswer: it has another one.
        """
        return self._run([sys.executable, "manage.py", "signalbus", *words], shlex.join(words), allowed)

    def kill(self, *pids: str) -> None:
        """Run ``kill -9``.

        Args:
            pids: the ids of the processes.
        """
        self._run(["kill", "-9", *pids], "`kill -9 PID`", (0,))

    def _run(self, command: list[str], typed: str, allowed: Sequence[int]) -> int:
        began = time.monotonic()
        ran = subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.seconds += time.monotonic() - began
        self.commands.append(typed)
        self._output = ran.stdout
        if ran.returncode not in allowed:
            raise WrongAnswer(f"{typed}: exit code {ran.returncode}; it printed\n{self._output}")
        return ran.returncode

    def read(self, *patterns: str) -> re.Match[str]:
        """Find patterns in what the last command printed; each must be there.

        Args:
            patterns: regular expressions; ``^`` and ``$`` are those of a line.

        Returns:
            The match of the last one.

        Raises:
            WrongAnswer: one is not there.
        """
        found = None
        for pattern in patterns:
            found = re.search(pattern, self._output, re.MULTILINE)
            if found is None:
                raise WrongAnswer(f"{self.commands[-1]} does not say {pattern!r}; it printed\n{self._output}")
        assert found is not None
        return found

    def read_all(self, pattern: str) -> list[str]:
        """Return all that the last command printed of a group of a pattern.

        Args:
            pattern: a regular expression with one group.
        """
        return re.findall(pattern, self._output, re.MULTILINE)

    def judge(self, start: float) -> None:
        """Note as faults if it took too many commands, or too long.

        Args:
            start: seconds that a command takes to start now.
        """
        most = most_seconds(start)
        if len(self.commands) > MOST_COMMANDS:
            self.faults.append(f"{len(self.commands)} commands, at most {MOST_COMMANDS}")
        if self.seconds > most:
            self.faults.append(f"{self.seconds:.1f} s, at most {most:.1f} s")


@dataclass(slots=True)
class Answers:
    """The questions of all incidents.

    Args:
        asked: the questions, in their order.
        starts: seconds that a command took to start, at several times.
    """

    asked: list[Question] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)

    def measure_start(self, environment: Mapping[str, str]) -> None:
        """Measure how long a command takes to start now: one that reads a table that is nearly empty.

        Args:
            environment: of the command.
        """
        began = time.monotonic()
        command = [sys.executable, "manage.py", "signalbus", "pause"]
        subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **environment}, check=True, capture_output=True)
        self.starts.append(time.monotonic() - began)

    @contextmanager
    def question(self, incident: str, asked: str, environment: Mapping[str, str]) -> Iterator[Question]:
        """Ask a question; it is kept, and printed, also if its answer is wrong.

        Args:
            incident: what happened.
            asked: the question.
            environment: of the commands.
        """
        question = Question(incident, asked, environment)
        self.asked.append(question)
        try:
            yield question
        except WrongAnswer as error:
            question.faults.append(str(error))
            raise
        finally:
            print(_row(question), flush=True)

    @property
    def faults(self) -> list[str]:
        """What is wrong, with the question."""
        return [f"{each.incident}, {each.asked}: {fault}" for each in self.asked for fault in each.faults]

    def table(self) -> str:
        """Return the questions as a Markdown table."""
        head = ["| incident | question | commands | seconds | answer |", "|---|---|---|---:|---|"]
        return "\n".join([*head, *map(_row, self.asked)])


def _row(question: Question) -> str:
    commands = ", ".join(each if each.startswith("`") else f"`{each}`" for each in question.commands)
    answer = question.answer if not question.faults else f"WRONG: {question.faults[0].splitlines()[0]}"
    cells = (question.incident, question.asked, commands, f"{question.seconds:.1f}", answer)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_table(path: Path, lines: Iterable[str]) -> None:
    """Replace what a document has between two marks.

    Args:
        path: the document, with the marks.
        lines: what stands between them from now on.

    Raises:
        ValueError: it lacks the marks.
    """
    text = path.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path} has no lines {BEGIN!r} and {END!r}, between which the table would stand.")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    path.write_text("\n".join([before + BEGIN, "", *lines, "", after]))

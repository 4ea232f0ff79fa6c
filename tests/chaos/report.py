"""The results of a run: a table for people, JSON for programs.

``python -m tests.chaos.report one.json another.json`` prints the tables of runs that were made in pieces.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SCHEMA = 1
COLUMNS = ("owed", "lost", "duplicate", "phantom", "stuck", "dead")
TIMES = ("p50", "p99", "max")


@dataclass(frozen=True, slots=True)
class Result:
    """A row.

    Args:
        name: of the fault or scenario.
        title: what happened.
        database: on what; in a scenario, whose queue.
        injections: how often.
        seconds: that it went on.
        rate: messages sent a second, as asked for.
        figures: what was measured, by name.
        broken: a sentence for each expectation that did not hold.
        examples: some of what was wrong, by kind.
        skipped: why it was not run; empty if it was.
        judged: whether anything was expected.
        kept: where the logs are, if something was broken.
    """

    name: str
    title: str
    database: str
    injections: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)
    skipped: str = ""
    judged: bool = True
    kept: str = ""

    @property
    def verdict(self) -> str:
        """Return "held", or the reasons why not."""
        if self.skipped:
            return f"not run: {self.skipped}"
        return "; ".join(self.broken) or ("held" if self.judged else "measured")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def table(results: Iterable[Result]) -> str:
    """Return the faults as a Markdown table: counts, seconds, other figures."""
    head = ["fault", "database", "times", *COLUMNS, *(f"{name} s" for name in TIMES), "besides", "expected"]
    lines = [_row(head), _row(["---"] * 3 + ["---:"] * (len(COLUMNS) + len(TIMES)) + ["---"] * 2)]
    for each in results:
        others = {k: v for k, v in each.figures.items() if k not in {*COLUMNS, *TIMES} and v}
        besides = ", ".join(f"{name} {_number(value)}" for name, value in others.items())
        figures = [_number(each.figures.get(name)) for name in (*COLUMNS, *TIMES)]
        lines.append(_row([each.title, each.database, str(each.injections), *figures, besides, each.verdict]))
    return "\n".join(lines)


def scenarios_table(results: Sequence[Result]) -> str:
    """Return the scenarios as a Markdown table: recovery divided by baseline for each side, and our losses."""
    sides = list(dict.fromkeys(each.database for each in results))
    names = list(dict.fromkeys(each.name for each in results))
    found = {(each.name, each.database): each for each in results}
    head = ["scenario", *(f"{side}, a second: baseline, pressure, recovery (ratio)" for side in sides), "ours"]
    lines = [_row(head), _row(["---"] * len(head))]
    for name in names:
        row = [f"`{name}`", *(_rates(found.get((name, side))) for side in sides)]
        ours = found.get((name, "signalbus"))
        lines.append(_row([*row, _losses(ours) if ours else ""]))
    return "\n".join(lines)


def _rates(result: Result | None) -> str:
    if result is None:
        return ""
    if result.skipped:
        return f"not run: {result.skipped}"
    figures = result.figures
    phases = ", ".join(f"{figures[name]:.0f}" for name in ("baseline", "pressure", "recovery"))
    died = f"; {figures['workers_died']:.0f} died" if figures.get("workers_died") else ""
    return f"{phases} ({figures['ratio']:.0%}{died})"


def _losses(result: Result) -> str:
    counts = ", ".join(f"{name} {result.figures.get(name, 0):.0f}" for name in COLUMNS)
    return f"{counts}: {result.verdict}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write(path: Path, results: Iterable[Result], scenarios: Iterable[Result], **run: Any) -> None:
    """Write the JSON: an object with ``schema``, the options, ``faults`` and ``scenarios``."""
    content = {
        "schema": SCHEMA,
        **run,
        "faults": [asdict(each) for each in results],
        "scenarios": [asdict(each) for each in scenarios],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def read(paths: Iterable[Path]) -> tuple[list[Result], list[Result]]:
    """Return the faults and the scenarios of several runs, in the order of the files."""
    runs = [json.loads(path.read_text()) for path in paths]
    faults, scenarios = ([Result(**each) for run in runs for each in run[part]] for part in ("faults", "scenarios"))
    return faults, scenarios


def main(paths: Sequence[str]) -> None:
    """Print the tables of runs that were made in pieces."""
    faults, scenarios = read(map(Path, paths))
    for part in [table(faults)] * bool(faults) + [scenarios_table(scenarios)] * bool(scenarios):
        print(f"{part}\n")


if __name__ == "__main__":
    main(sys.argv[1:])

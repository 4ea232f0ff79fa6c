"""Writes the tables of docs/performance.md from the JSON of runs: ``python -m benchmarks.page``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "performance.md"
RESULTS = DOCS / "benchmarks" / "bench.json"
SHARES = DOCS / "benchmarks" / "shares.json"
UNITS = {"us": "µs"}
PARTS = {
    "Sending": r"send\(|Celery's|durable send\(\) ÷ \(",
    "A worker that empties its queue": r"drain",
    "The same, kept in the ledger, beside queues that keep theirs in a database too": r"durable drain",
    "How late": r"idle|an idle|mixed",
    "What does not grow": r"backlog|[\d,]+ signals|.* rows settled",
    "What the ledger costs": r"durable send|rows of|whole|a durable delivery ÷",
    "Everything that is kept, beside 0.4.1, which kept nothing of the past": r"everything kept",
}


def _written() -> dict[str, str]:
    """Return the contents of the page's marked places."""
    return {
        "bench": text(json.loads(RESULTS.read_text())),
        "shares": shares(json.loads(SHARES.read_text())),
    }


def shares(operations: list[dict[str, Any]]) -> str:
    """Return the table of the shares of time.

    Args:
        operations: as ``python -m benchmarks.shares`` writes them.
    """
    rows = ["| what | µs | of which |", "|---|---|---|"]
    for each in operations:
        parts = ", ".join(f"{name} {_number(number)}" for name, number in each["parts"].items())
        rows.append(f"| {each['title']} | {_number(each['microseconds'])} | {parts} |")
    return "\n".join(rows)


def text(results: dict[str, Any]) -> str:
    """Return the tables of a run.

    Args:
        results: as ``python -m benchmarks --json`` writes them.
    """
    waiting = list(results["lines"])
    parts = [_machine(results)]
    for title, pattern in PARTS.items():
        lines = [line for line in waiting if re.match(pattern, line["title"])]
        waiting = [line for line in waiting if line not in lines]
        if lines:
            parts.append("\n".join([f"### {title}", "", *_table(lines)]))
    parts += [f"Left out: {name}: {reason.splitlines()[0]}" for name, reason in results["left_out"].items()]
    return "\n\n".join(parts)


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    held = [line["held"] for line in results["lines"] if line["held"] is not None]
    return (
        f"{sum(held)} of {len(held)} goals held, on {machine['at'][:10]}, with {machine['cores']} cores "
        f"({machine['processor']}), {machine['system']}, Python {machine['python']}, commit {machine['commit']}; "
        f"{results['rounds']} rounds at scale {results['scale']:g}, {results['minutes']} minutes, load "
        f"{machine['load'][0]:g} at its end. {versions}."
    )


def _table(lines: list[dict[str, Any]]) -> list[str]:
    rows = ["| what ÷ what | ours | the other | CPU a message, µs | ratio (lowest to highest) | goal |"]
    rows.append("|---|---|---|---|---|---|")
    for line in lines:
        unit = UNITS.get(line["unit"], line["unit"])
        cpu = "{:,.0f} : {:,.0f}".format(*line["cpu"]) if line["cpu"] else ""
        goal = f"{line['goal']['sign']} {line['goal']['value']:g}, {_verdict(line)}" if line["goal"] else ""
        low, high = line["spread"]
        numbers = f"{_number(line['ours'])} {unit} | {_number(line['other'])} {unit} | {cpu}"
        rows.append(f"| {line['title']} | {numbers} | {line['ratio']:.2f} ({low:.2f} to {high:.2f}) | {goal} |")
    return rows


def _verdict(line: dict[str, Any]) -> str:
    return "held" if line["held"] else "**missed**"


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"  # noqa: PLR2004 - three digits say enough


def rewritten(page: str) -> str:
    """Return the page with new contents.

    Args:
        page: as it stands.
    """
    for name, written in _written().items():
        begin, end = f"<!-- {name}: written by python -m benchmarks.page -->", f"<!-- {name}: until here -->"
        before, rest = page.split(begin)
        _, after = rest.split(end)
        page = f"{before}{begin}\n\n{written}\n\n{end}{after}"
    return page


def main() -> int:
    """Rewrite the page."""
    PAGE.write_text(rewritten(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The benchmark runs: some of its rows, at a scale at which their numbers mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.servers import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [
    "send(), durable=False",
    "drain, threads: a row",
    "rows of a durable send(), postgres",
    "everything kept, sqlite",
]


def run(*words: str) -> str:
    """Run the benchmark without the peers; return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    command = [sys.executable, "-m", "benchmarks", "--no-peers", "--rounds", "1", *words]
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_rows_are_measured_printed_and_written(tmp_path: Path):
    """Each chosen row is in the table and in the JSON, with a ratio and a worker's processor time."""
    path = tmp_path / "bench.json"
    only = [word for row in ROWS for word in ("--only", row)]

    printed = run("--scale", "0.01", "--json", str(path), *only)

    results = json.loads(path.read_text())
    lines = {line["title"]: line for line in results["lines"]}
    assert all(title in printed for title in lines)
    assert all(line["ratio"] > 0 for line in lines.values())
    assert any(line["held"] is not None for line in lines.values())
    drained = lines["drain, threads: a row fetched; both in a transaction ÷ Celery"]
    assert all(number > 0 for number in drained["cpu"])
    assert {"send() ÷ raw LPUSH of an item of 1.1 KB", "Celery's .delay() ÷ send()"} <= lines.keys()
    assert {"Valkey", "PostgreSQL"} <= results["machine"]["versions"].keys()


def test_every_part_lists_its_rows():
    """`--list` lists the rows, and measures nothing."""
    rows = run("--list").splitlines()

    assert {"drain, prefork: nothing, sent in batches", "backlog", "a million rows settled, postgres"} <= set(rows)
    assert not any("peers" in row for row in rows)

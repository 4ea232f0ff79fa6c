"""`manage.py signalbus doctor` prints the findings, for people and for programs."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command

from signalbus.doctor.findings import Finding, ok, problem, warning
from signalbus.management.subcommands import diagnosing

WELL = ok("clock.broker", "The clocks agree.")
WORSE = warning("ledger.purge", "The tables \x1b[31mgrow.", "Run purge.")
WORST = problem("keys", "2 parked texts.", "Give them the key.")


def run(monkeypatch, findings: list[Finding], *options: str) -> tuple[str, str]:
    """Run the command on some findings; return its output and its error, if it ends with one."""
    monkeypatch.setattr(diagnosing, "examine", lambda: iter(findings))
    output = io.StringIO()
    try:
        call_command("signalbus", "doctor", *options, stdout=output)
    except CommandError as error:  # whose exit code is 1
        return output.getvalue(), str(error)
    return output.getvalue(), ""


def test_doctor_without_findings_has_exit_code_0(monkeypatch):
    """The exit code is 0."""
    output, error = run(monkeypatch, [WELL])
    assert output.splitlines() == ["ok       clock.broker                The clocks agree.", "All is well: 1 ok."]
    assert not error


@pytest.mark.parametrize("bad", [WORSE, WORST])
def test_doctor_with_a_finding_has_exit_code_1(monkeypatch, bad):
    """The exit code is 1; the remedy stands below the finding."""
    output, error = run(monkeypatch, [WELL, bad])
    assert output.splitlines()[-1].strip() == f"-> {bad.remedy}"
    assert "1 ok" in error


def test_escapes_do_not_reach_the_terminal(monkeypatch):
    """A text may have come from a broker or a database."""
    output, _ = run(monkeypatch, [WORSE])
    assert "\x1b" not in output


def test_json(monkeypatch):
    """Programs get an object with the number of its schema."""
    output, error = run(monkeypatch, [WELL, WORST], "--json")
    assert json.loads(output) == {
        "schema": 1,
        "findings": [
            {"name": "clock.broker", "level": "ok", "text": "The clocks agree.", "remedy": ""},
            {"name": "keys", "level": "problem", "text": "2 parked texts.", "remedy": "Give them the key."},
        ],
    }
    assert error == "1 problem, 0 warnings, 1 ok."

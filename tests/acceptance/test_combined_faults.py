"""Workers are killed, and the broker loses data and dies, while signals are sent."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.servers import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = float(os.environ.get("SIGNALBUS_COMBINED", "3"))  # of faults; with 60 and more it sends thousands of signals
RATE = 40  # transactions a second


@pytest.mark.parametrize("database", ["sqlite"] if SECONDS < 60 else ["sqlite", "postgres"])
def test_promise_2_under_combined_faults_each_signal_has_its_one_effect(database: str, tmp_path: Path):
    """Each committed message has exactly one effect in the end; the chaos suite counts them."""
    command = [sys.executable, "-m", "tests.chaos", "--faults", "combined", "--databases", database]
    command += ["--seconds", str(SECONDS), "--rate", str(RATE), "--kills", "4", "--json", str(tmp_path / "chaos.json")]

    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=240 + 2 * SECONDS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "held" in done.stdout

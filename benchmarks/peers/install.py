"""Installs the peers, one by one if necessary, so that one that cannot be installed does not keep out the rest.

``python -m benchmarks.peers.install``
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _install(*requirements: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main() -> int:
    """Install the packages of the extra, and name those that could not be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [each for each in project["optional-dependencies"]["bench"] if "signalbus" not in each]
    if _install(*requirements).returncode:
        for each in requirements:
            tried = _install(each)
            if tried.returncode:
                print(f"left out: {each}: {tried.stderr.strip().splitlines()[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

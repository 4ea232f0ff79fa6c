"""Run the tests on the versions that the README promises: each pair of Python and Django, and the lowest of everything.

An interpreter that this machine lacks is skipped, and named as skipped. ``--only 3.12`` runs one environment;
``--others`` leaves out the one that runs this script, which `make test` tests; ``--postgres-on 3.13`` runs the tests
on PostgreSQL in this environment alone, and on SQLite in all; other arguments go to pytest. These options come first,
in this order.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The tests that each environment runs. The wheel's tests are `make wheel`.
TESTS = ["tests/acceptance", "tests/integration", "tests/documents", "tests/unit"]
# As `make test` does: tests wait for servers and workers more than half of the time.
PARALLEL = ["-n", str(min(6, (os.cpu_count() or 1) + 2)), "--dist", "loadfile", "--no-loadscope-reorder"]


@dataclass(frozen=True)
class Run:
    """One environment.

    Args:
        python: the interpreter's version.
        pins: what is installed beside the project.
    """

    python: str
    pins: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its environment's folder."""
        return f"py{self.python}-" + "-".join(re.sub(r"[^\w.]", "", pin) for pin in self.pins[:1])

    @property
    def is_current(self) -> bool:
        """Whether it is the environment that runs this script: its Python, series of Django and newest packages."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        series = importlib.metadata.version("Django").rpartition(".")[0]
        return self.python == python and self.pins == (f"Django=={series}.*",)


def lowest() -> tuple[str, ...]:
    """Return every dependency at its lower bound, as pyproject.toml states it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return tuple(re.sub(r">=([\d.]+).*", r"==\1", each) for each in project["dependencies"])


def interpreter(version: str) -> str | None:
    """Find a Python that really runs: pyenv's shims answer for versions that are not active."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    candidates = [shutil.which(f"python{version}"), *map(str, pyenv)]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def installed(each: Run, python: str) -> Path:
    """Install one environment; return its interpreter."""
    venv = ROOT / ".venv" / "matrix" / each.name
    binary = venv / "bin" / "python"
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    install = [str(binary), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--editable", f"{ROOT}[test]", *each.pins], check=True)
    return binary


def main(arguments: list[str]) -> int:
    """Run the matrix; return 0 if each environment that could be made passed."""
    runs = [
        Run("3.11", ("Django==5.2.*",)),
        Run("3.12", ("Django==6.0.*",)),
        Run("3.13", ("Django==6.1.*",)),
        Run("3.11", lowest()),
    ]
    if arguments[:1] == ["--only"]:
        runs = [each for each in runs if each.python == arguments[1]]
        arguments = arguments[2:]
    if arguments[:1] == ["--others"]:
        for each in runs:
            if each.is_current:
                print(f"== left out, this environment is the same: Python {each.python}, {', '.join(each.pins)}")
        runs = [each for each in runs if not each.is_current]
        arguments = arguments[1:]
    postgres_on = None
    if arguments[:1] == ["--postgres-on"]:
        postgres_on, arguments = arguments[1], arguments[2:]
    outcomes: dict[str, int | str] = {}
    with ThreadPoolExecutor(1) as installer:  # installs the next environment while the tests of one run
        binaries = [
            python and installer.submit(installed, each, python)
            for each, python in ((each, interpreter(each.python)) for each in runs)
        ]
        for each, binary in zip(runs, binaries, strict=True):
            on_sqlite = postgres_on not in {None, each.python}
            label = f"Python {each.python}, {', '.join(each.pins)}" + (", on SQLite" if on_sqlite else "")
            print(f"== {label}", flush=True)
            if not binary:
                outcomes[label] = "skipped: no such interpreter"
                continue
            tests = [*(arguments or TESTS), *(["-k", "not postgres"] if on_sqlite else [])]
            command = [str(binary.result()), "-m", "pytest", "-q", *PARALLEL, *tests]
            outcomes[label] = subprocess.run(command, cwd=ROOT, check=False).returncode
    print("\n".join(f"{'passed' if outcome == 0 else outcome}: {label}" for label, outcome in outcomes.items()))
    return int(any(outcome not in {0, "skipped: no such interpreter"} for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

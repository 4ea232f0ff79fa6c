"""Gives a process a wrong clock, with a small library that is compiled on demand."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

COMPILER = shutil.which("cc")
SOURCE = Path(__file__).parent / "skewed_clock.c"
SECONDS = "CLOCK_SKEW"  # by how many, in the environment of a process


@cache
def library() -> Path:
    """Return the library that such a process preloads."""
    assert COMPILER is not None, "there is no C compiler"
    directory = Path(tempfile.mkdtemp(prefix="signalbus-skew-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    compiled = directory / "skewed_clock.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-Wall", "-Werror", "-o", compiled, SOURCE, "-ldl"], check=True)
    return compiled

"""Read the documents: their paths, their blocks of code, and the files and sessions of their examples.

A block that begins with ``# admissions/models.py`` is a file of the reader's project; a second block of the same name
is appended to it. The other blocks of Python, and the ``>>>`` sessions, run in order, as in ``manage.py shell``.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
INDEX = ROOT / "docs" / "index.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]
EVERY = [
    *DOCUMENTS,
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^# ([\w/]+\.py)\b.*\n")


def identify(path: Path) -> str:
    """Name a document in pytest's output."""
    return str(path.relative_to(ROOT))


def blocks(document: Path, *kinds: str) -> list[tuple[str, int, str]]:
    """Return a document's blocks of some kinds, each with the line that it stands at."""
    text = document.read_text()
    found = [(match[1], text.count("\n", 0, match.start()) + 1, match[2]) for match in BLOCK.finditer(text)]
    return [block for block in found if block[0] in kinds]


def examples(document: Path) -> tuple[dict[str, str], list[tuple[str, int, str]]]:
    """Sort a document's examples into files and sessions."""
    files: dict[str, str] = {}
    sessions = []
    for kind, line, code in blocks(document, "python", "pycon"):
        named = FILE.match(code)
        if named:
            files[named[1]] = files.get(named[1], "") + code + "\n\n"
        else:
            sessions.append((kind, line, code))
    return files, sessions

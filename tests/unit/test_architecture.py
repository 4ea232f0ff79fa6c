"""docs/architecture.md is true of the folders, and no two modules or classes have one name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import signalbus

PACKAGE = Path(signalbus.__file__).parent
ROOT = PACKAGE.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "migrations")
# Names that Django asks for.
GIVEN = {"Meta", "Command", "__init__.py"}


def places(text: str) -> set[str]:
    """Return the files and folders that a text names in backticks."""
    return set(re.findall(r"`([\w/]+(?:/|\.py))`", text))


def test_each_path_on_the_page_exists():
    """A reader who follows a path finds the file."""
    missing = {place for place in places(PAGE) if not any((root / place).exists() for root in (PACKAGE, ROOT))}
    missing -= {"structures.py"}  # beside the one that is named in full
    assert not missing


def test_each_folder_is_on_the_page():
    """A reader finds the question that each folder and each module at the top answers."""
    table = PAGE[PAGE.index("## The folders") : PAGE.index("## The tables")]
    named = places(table) | {place.split("/")[0] + "/" for place in places(table)}
    found = {f"{path.parent.relative_to(PACKAGE)}/" for path in MODULES if path.parent != PACKAGE}
    found |= {path.name for path in MODULES if path.parent == PACKAGE}
    assert found - named == {"__init__.py", "management/commands/", "wire/values/"}


def test_each_invariant_names_a_test():
    """Each row of the table of invariants names a test module, or the suite that holds it."""
    table = PAGE[PAGE.index("## Invariants") : PAGE.index("## Where do I look")]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert rows
    assert [row for row in rows if "tests/" not in row and "make chaos" not in row] == []


def test_no_two_modules_have_one_name():
    """A name says where a thing is."""
    found = defaultdict(list)
    for path in MODULES:
        found[path.name].append(path.relative_to(PACKAGE))
    assert {name: paths for name, paths in found.items() if len(paths) > 1 and name not in GIVEN} == {}


def test_no_two_classes_have_one_name():
    """A reader of a traceback or a type knows which class is meant."""
    found = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert {name: where for name, where in found.items() if len(where) > 1 and name not in GIVEN} == {}


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda path: path.name)
def test_no_folder_is_crowded(folder: Path):
    """A folder has about a dozen modules at most, and says what it is responsible for."""
    modules = [path for path in MODULES if path.parent == folder and path.name != "__init__.py"]
    assert len(modules) <= 16
    assert folder == PACKAGE / "management" / "commands" or ast.get_docstring(
        ast.parse((folder / "__init__.py").read_text())
    )

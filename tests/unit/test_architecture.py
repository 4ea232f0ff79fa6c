"""docs/architecture.md is true of the folders, module and class names are unique, and names use standard terms."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import signalbus

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(signalbus.__file__).parent
ROOT = PACKAGE.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "migrations")
# Names that Django asks for.
GIVEN = {"Meta", "Command", "__init__.py", "apps.py"}

OUR_CODE = ("signalbus", "config", "tasks", "tests", "benchmarks", "scripts")
# Words that name one of our concepts by a picture, and the standard term; forbidden in any name, as whole words.
PICTURES = {
    "addressing": "routing, resolution",
    "aside": "quarantine",
    "beat": "heartbeat",
    "beats": "heartbeats",
    "company": "batch, group commit",
    "cure": "remedy",
    "cures": "remedies",
    "give back": "requeue, unclaim",
    "gives back": "requeues, unclaims",
    "given back": "requeued, unclaimed",
    "giving back": "requeueing, unclaiming",
    "lane": "fast path",
    "lanes": "fast paths",
    "lookout": "watchdog",
    "manners": "runtime estimates",
    "mates": "stragglers",
    "mend": "operations, by hand",
    "mended": "repaired",
    "mending": "operations, by hand",
    "pace": "runtime estimate, rate",
    "parcel": "batch",
    "parcels": "batches",
    "pulse": "heartbeat",
    "room": "batch",
    "rooms": "packages",
    "roster": "subscriptions",
    "sociable": "can share a commit",
    "stand in": "placeholder",
    "stand ins": "placeholders",
    "stands": "is still true",
    "take back": "requeue, unclaim",
    "travel together": "batch",
    "travelling together": "batching",
    "trouble": "outage, fault",
    "troubled": "failed",
    "under way": "in flight",
    "upkeep": "connection management",
}
# Ordinary words, which are too vague as the whole name of a module or class.
VAGUE = {
    "calling": "invocation, attempt",
    "ending": "shutdown",
    "held": "in flight",
    "kept": "recorded",
    "line": "tracking connection",
    "lines": "tracking connections",
    "once": "deduplication",
    "opening": "verification",
    "places": "sequence numbers",
    "turns": "sequencing",
}
# Names that have such a word for another reason.
OTHER_MEANINGS = {
    "Held": "the verdict that leads to the state HELD of a delivery",
    "Line": "a model of the tests: a line of an order",
}


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
    table = PAGE[PAGE.index("## Invariants") : PAGE.index("## Where to look")]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert rows
    assert [row for row in rows if "tests/" not in row and "make chaos" not in row] == []


def test_module_docstrings_name_modules_that_exist():
    """A docstring that sends its reader to a neighbour, as `ledger/sweeps`, names a module or package that exists."""
    known = {path.with_suffix("").relative_to(PACKAGE) for path in MODULES} | {
        path.parent.relative_to(PACKAGE) for path in MODULES
    }
    missing = {
        (str(path.relative_to(PACKAGE)), named)
        for path in MODULES
        for named in re.findall(r"`([a-z_]+(?:/[a-z_]+)+)/?`", ast.get_docstring(ast.parse(path.read_text())) or "")
        if not any(parent / named in known for parent in path.relative_to(PACKAGE).parents)
    }
    assert not missing


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
    assert len(modules) <= 15
    assert folder == PACKAGE / "management" / "commands" or ast.get_docstring(
        ast.parse((folder / "__init__.py").read_text())
    )


def words(name: str) -> list[str]:
    """Return the words of a name in snake_case or CamelCase, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def defined(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the functions, classes, arguments, attributes and names of a module, each with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
        if isinstance(node, ast.Module | ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.Assign | ast.AnnAssign):
                    yield from (
                        (part.id, part.lineno)
                        for part in ast.walk(statement)
                        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
                    )


def pictures_in(name: str) -> list[str]:
    """Return the words of a name that stand in the table of pictures."""
    found = f" {' '.join(words(name))} "
    return [picture for picture in PICTURES if f" {picture} " in found]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("_give_back", ["give back"]),
        ("StragglerMates", ["mates"]),
        ("test_a_lost_pulse_is_noticed", ["pulse"]),
        ("heartbeat_seconds", []),
        ("give_it_back", []),
        ("automates", []),
    ],
)
def test_pictures_are_found_as_whole_words(name: str, found: list[str]):
    """A word that merely contains one of the table is no picture."""
    assert pictures_in(name) == found


@pytest.mark.parametrize("folder", OUR_CODE)
def test_names_use_the_standard_terms(folder: str):
    """One concept has one term, which readers know from Celery, Redis and PostgreSQL."""
    wrong = set()
    for path in sorted((ROOT / folder).rglob("*.py")):
        where = path.relative_to(ROOT)
        tree = ast.parse(path.read_text())
        modules = [(part, 1) for part in (*where.parts[1:-1], path.stem)]
        classes = [(node.name, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for name, line in [*modules, *defined(tree)]:
            wrong |= {(f"{where}:{line}", name, PICTURES[picture]) for picture in pictures_in(name)}
        for name, line in [*modules, *classes]:
            if (whole := " ".join(words(name))) in VAGUE:
                wrong.add((f"{where}:{line}", name, VAGUE[whole]))
    found = sorted(f"{at} {name}: say {term}" for at, name, term in wrong if name not in OTHER_MEANINGS)
    assert not found, "\n".join(found)

"""The documents agree with the code: their tables, links, diffs and commands. tests/documents runs their examples."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shlex
from importlib.util import find_spec
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from django.core.management import get_commands, load_command_class

from signalbus import Signal, __version__, conf, exceptions
from signalbus.events import KINDS, Event
from signalbus.models import State
from tests.documents.reading import DOCUMENTS, EVERY, INDEX, README, ROOT, TUTORIAL, blocks, examples, identify

if TYPE_CHECKING:
    from pathlib import Path


def after(diff: str) -> str:
    """Return the new side of a diff."""
    return dedent("".join(f"{line[1:]}\n" for line in diff.splitlines() if not line.startswith("-")))


@pytest.mark.parametrize("document", [README, INDEX], ids=identify)
def test_the_first_example_is_the_tutorials(document: Path):
    """The README and the documentation's first page show the tutorial's example."""
    shown, built = examples(document)[0], examples(TUTORIAL)[0]

    assert {"admissions/signals.py", "marketing/receivers.py"} <= shown.keys()
    assert shown == {name: built[name] for name in shown}


@pytest.mark.parametrize("document", EVERY, ids=identify)
def test_the_result_of_a_diff_is_python(document: Path):
    """The new side of each diff can be parsed."""
    for _, line, code in blocks(document, "diff"):
        left = after(code)
        assert left, line
        ast.parse(left)


def shell_commands(document: Path) -> list[str]:
    """Return the commands of a document."""
    lines = [line for _, _, code in blocks(document, "console") for line in code.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("document", EVERY, ids=identify)
def test_the_commands_exist(document: Path):
    """Each command is a target of make, a command of manage.py, or a sub-command of signalbus."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {*get_commands(), "test"}
    command = load_command_class("signalbus", "signalbus")
    parser = command.create_parser("manage.py", "signalbus")
    for line in shell_commands(document):
        words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if not words or words[0] in {"export", "pip", "celery", "celery-task-manager", "django-admin", "valkey-server"}:
            continue
        if words[0] == "make":
            assert words[1] in targets, line
        elif words[:2] == ["python", "-m"]:
            assert find_spec(words[2]) is not None, line
        else:
            assert words[:2] == ["python", "manage.py"], line
            assert words[2] in known, line
            if words[2] == "signalbus":
                parser.parse_args(words[3:])


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", EVERY, ids=identify)
def test_the_links_lead_somewhere(document: Path):
    """A relative link names a file or folder of this checkout, and its anchor a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            place = document.parent / path if path else document
            assert place.exists(), target
            assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize("document", EVERY, ids=identify)
def test_each_row_of_a_table_has_as_many_cells_as_its_head(document: Path):
    """A bar within a cell is written as ``\\|``, also in code: otherwise it ends the cell."""
    width = 0
    for line in document.read_text().splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        bars = len(re.findall(r"(?<!\\)\|", line))
        width = width or bars
        assert bars == width, line


def rows(document: Path, first: str) -> dict[str, list[str]]:
    """Return the rows of the table whose first column has this title, by their first cell."""
    lines = document.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |")) + 2
    found = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        found[cells[0]] = cells[1:]
    return found


def test_the_table_of_settings_is_the_code():
    """docs/settings.md lists each key of SIGNALBUS with its default, in the same order, and no other."""
    written = {name: cells[0] for name, cells in rows(ROOT / "docs" / "settings.md", "key").items()}

    assert list(written.items()) == [(field.name, repr(field.default)) for field in dataclasses.fields(conf.Settings)]


def test_the_tables_of_options_are_the_code():
    """docs/receivers.md lists each option of Signal() and of connect(), and no other."""
    document = ROOT / "docs" / "receivers.md"
    declared = set(inspect.signature(Signal).parameters)
    connected = set(inspect.signature(Signal.connect).parameters) - {"self", "receiver"}

    assert set(rows(document, "`Signal(…)`")) == declared
    assert set(rows(document, "option")) == connected


def test_the_table_of_states_is_the_code():
    """docs/operating.md lists each state of a delivery, and no other."""
    written = [name.strip(" `") for cell in rows(ROOT / "docs" / "operating.md", "state") for name in cell.split(",")]

    assert sorted(written) == sorted(State.values)


def test_the_tables_of_events_are_the_code():
    """docs/events.md lists each kind of event and each field of an event, and no other."""
    document = ROOT / "docs" / "events.md"

    assert list(rows(document, "kind")) == list(KINDS)
    assert list(rows(document, "field")) == list(Event._fields)


def test_the_api_reference_has_each_name_that_an_example_imports():
    """docs/api.md names what the documents import from signalbus, or all of its module."""
    text = (ROOT / "docs" / "api.md").read_text()
    whole = set(re.findall(r"automodule:: (.+)", text))
    for document in DOCUMENTS:
        for _, line, code in blocks(document, "python", "pycon"):
            for module, names in re.findall(r"^(?:>>> )?from (signalbus[\w.]*) import (.+)$", code, re.MULTILINE):
                for name in names.split(", "):
                    is_listed = module in whole or re.search(rf"\b{module}\.{name}\b", text)
                    assert is_listed, f"{module}.{name} in {identify(document)}:{line}"


def test_the_table_of_system_checks_is_the_code():
    """docs/troubleshooting.md lists the id of each system check of signalbus, and no other."""
    written = [name for cell in rows(ROOT / "docs" / "troubleshooting.md", "id") for name in cell.split(", ")]
    source = (ROOT / "signalbus" / "checks" / "__init__.py").read_text()

    assert written == sorted(set(re.findall(r"\b[EIW]0\d\d\b", source)))


def test_the_map_of_contributing_names_each_folder():
    """CONTRIBUTING.md names each folder of the library, and of its tests."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for top in ("signalbus", "tests"):
        for folder in sorted((ROOT / top).iterdir()):
            if (folder / "__init__.py").is_file():
                assert f"`{top}/{folder.name}/`" in text, folder.name


def test_the_changelog_begins_with_this_version():
    """The newest entry is of this version, below unreleased changes."""
    entries = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(entry for entry in entries if entry != "Unreleased") == __version__
    assert "Unreleased" not in entries[1:]


def test_the_table_of_errors_is_the_code():
    """docs/operating.md lists each error of signalbus.exceptions, and no other."""
    own = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }

    assert set(rows(ROOT / "docs" / "operating.md", "error")) == own

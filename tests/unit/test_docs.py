"""The documents tell what is so: their examples run, their tables equal the code, their links lead somewhere.

A block that begins with ``# admissions/models.py`` is a file of the reader's project; a file named twice grows. Other
blocks of Python, and ``>>>`` sessions, run in order, as in ``manage.py shell``. Of a diff, the side after it counts.
Each document's project begins with the tutorial's files, and is a project of its own, in a process of its own.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest
from django.core.management import get_commands, load_command_class

from signalbus import Signal, __version__, conf, exceptions
from signalbus.models import State

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

# What `django-admin startproject` and `startapp` leave, as far as the examples need it.
SCAFFOLD = {
    "manage.py": """
        import os, sys
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
        """,
    "mysite/__init__.py": "",
    "mysite/settings.py": """
        SECRET_KEY = "the reader's"
        INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        USE_TZ = True
        CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
        """,
    "admissions/__init__.py": "",
    "marketing/__init__.py": "",
}
# Runs a document's sessions; what they send is captured, and delivered at the end.
DRIVER = """
import doctest, json, sys, types
import django
django.setup()
from django.core.management import call_command
from celery import current_app
from signalbus.testing import captured
current_app.conf.task_always_eager = True
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("check", fail_level="WARNING", databases=["default"])
session = types.ModuleType("session")
sys.modules["session"] = session
with captured() as sent:
    for kind, line, code in json.load(sys.stdin):
        where = f"{sys.argv[1]}:{line}"
        if kind == "python":
            exec(compile("\\n" * line + code, sys.argv[1], "exec"), session.__dict__)
            continue
        test = doctest.DocTestParser().get_doctest(code, session.__dict__, where, sys.argv[1], line)
        test.globs = session.__dict__
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        assert runner.run(test, clear_globs=False).failed == 0, where
    sent.deliver_all()
"""


def identify(path: Path) -> str:
    """Name a document in pytest's output."""
    return str(path.relative_to(ROOT))


def blocks(document: Path, *kinds: str) -> list[tuple[str, int, str]]:
    """Return a document's blocks of some kinds, each with the line that it stands at."""
    text = document.read_text()
    found = [(match[1], text.count("\n", 0, match.start()) + 1, match[2]) for match in BLOCK.finditer(text)]
    return [block for block in found if block[0] in kinds]


def after(diff: str) -> str:
    """Return what a diff leaves."""
    return dedent("".join(f"{line[1:]}\n" for line in diff.splitlines() if not line.startswith("-")))


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


def write_project(directory: Path, document: Path) -> dict[str, str]:
    """Write the reader's project: the scaffold, the tutorial's files, and what the document adds to them."""
    files = {name: dedent(text).lstrip() for name, text in SCAFFOLD.items()}
    for source in dict.fromkeys([TUTORIAL, document]):
        for name, code in examples(source)[0].items():
            repeated = source is not TUTORIAL and code in files.get(name, "")
            if not repeated and (source is document or not name.endswith("tests.py")):
                files[name] = files.get(name, "") + code
    for name, code in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return files


def run(directory: Path, *arguments: str, stdin: str = "") -> None:
    """Run Python in the reader's project, and show what it says if it fails."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONPATH": f"{directory}:{ROOT}"}
    environment.pop("CELERY_BROKER_URL", None)
    command = [sys.executable, "-W", "error", *arguments]
    ended = subprocess.run(
        command, cwd=directory, env=environment, input=stdin, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_the_examples_run(document: Path, tmp_path: Path):
    """Whoever copies a document's examples into a project gets what the document says, its tests included."""
    files = write_project(tmp_path, document)

    run(tmp_path, "-c", DRIVER, identify(document), stdin=json.dumps(examples(document)[1]))

    if any(name.endswith("tests.py") for name in files):
        run(tmp_path, "manage.py", "test", "--verbosity", "0")
    if any(name.endswith("test_pytest.py") for name in files):
        # From a checkout that is not installed, nobody tells pytest of our plugin.
        plugin = [] if entry_points(group="pytest11", name="signalbus") else ["-p", "signalbus.pytest_plugin"]
        run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "-c", os.devnull, "--rootdir", ".", ".")


@pytest.mark.parametrize("document", [README, INDEX], ids=identify)
def test_the_first_example_is_the_tutorials(document: Path):
    """The example of the README and of the documentation's first page is the one that the tutorial builds."""
    shown, built = examples(document)[0], examples(TUTORIAL)[0]

    assert {"admissions/signals.py", "marketing/receivers.py"} <= shown.keys()
    assert shown == {name: built[name] for name in shown}


@pytest.mark.parametrize("document", EVERY, ids=identify)
def test_what_a_diff_leaves_is_python(document: Path):
    """The side of a diff that the reader is to have can be parsed."""
    for _, line, code in blocks(document, "diff"):
        left = after(code)
        assert left, line
        ast.parse(left)


def shell_commands(document: Path) -> list[str]:
    """Return what a document tells the reader to type."""
    lines = [line for _, _, code in blocks(document, "console") for line in code.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("document", EVERY, ids=identify)
def test_the_commands_exist(document: Path):
    """A command in a document is one that somebody can type: make's targets, manage.py's commands, our sub-commands."""
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


@pytest.mark.parametrize("document", EVERY, ids=identify)
def test_the_links_lead_somewhere(document: Path):
    """A relative link names a file or folder of this checkout."""
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


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


def test_the_changelog_begins_with_this_version():
    """What is built is what the newest entry tells of, below what is not released yet."""
    entries = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(entry for entry in entries if entry != "Unreleased") == __version__
    assert "Unreleased" not in entries[1:]


def test_the_table_of_errors_is_the_code():
    """docs/operating.md lists each error that a person can meet, and no other."""
    own = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }

    assert set(rows(ROOT / "docs" / "operating.md", "error")) == own

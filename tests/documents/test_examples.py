"""The examples in the documents run: each document's project in an empty folder, in a process of its own.

Each project begins with the tutorial's files. tests/documents/reading.py says which block is a file and which runs;
tests/unit/test_docs.py compares the documents' tables, links and commands with the code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.documents.reading import DOCUMENTS, ROOT, TUTORIAL, examples, identify

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if any(examples(each))], ids=identify)
def test_the_examples_run(document: Path, tmp_path: Path):
    """A document's examples, copied into a project, run and print what the document says; so do its tests."""
    files = write_project(tmp_path, document)

    run(tmp_path, "-c", DRIVER, identify(document), stdin=json.dumps(examples(document)[1]))

    if any(name.endswith("tests.py") for name in files):
        run(tmp_path, "manage.py", "test", "--verbosity", "0")
    if any(name.endswith("test_pytest.py") for name in files):
        # From a checkout that is not installed, nobody tells pytest of our plugin.
        plugin = [] if entry_points(group="pytest11", name="signalbus") else ["-p", "signalbus.pytest_plugin"]
        run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "-c", os.devnull, "--rootdir", ".", ".")

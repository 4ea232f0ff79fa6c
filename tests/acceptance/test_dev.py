"""`manage.py signalbus dev` in a project with the files of the README, and SQLite with Django's defaults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from tests.documents.reading import TUTORIAL, examples
from tests.servers import CHECKOUT, ProcessWatcher, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCAFFOLD = {
    "manage.py": """
        import os, sys
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
        """,
    "mysite/__init__.py": "",
    "mysite/settings.py": """
        from pathlib import Path
        DEBUG = True
        SECRET_KEY = "the reader's"
        INSTALLED_APPS = ["signalbus", "admissions", "marketing"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        USE_TZ = True
        """,
    "admissions/__init__.py": "",
    "admissions/migrations/__init__.py": "",
    "marketing/__init__.py": "",
}
FOREIGN = {"CELERY_BROKER_URL", "DATABASE_URL", "DEBUG", "DJANGO_SETTINGS_MODULE"}  # of this test run
SAVE = "from admissions.models import Cohort; Cohort.objects.create(name='Web 42', slug='web-42')"
RECEIVER = "marketing/receivers.py"


class Project:
    """The project in a folder, and `dev` that runs in it.

    Args:
        directory: the project's folder.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self._environment |= {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
        files = SCAFFOLD | {
            name: code for name, code in examples(TUTORIAL)[0].items() if not name.endswith(("settings.py", "tests.py"))
        }
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text).lstrip())

    def manage(self, *arguments: str) -> None:
        """Run a command of ``manage.py``, as in another terminal."""
        done = subprocess.run(
            self._command(*arguments), cwd=self.directory, env=self._environment, check=False, capture_output=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    def start(self) -> None:
        """Start `dev`, and wait until its worker is ready."""
        with (self.directory / "dev.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command("signalbus", "dev", "--concurrency", "1"),
                cwd=self.directory,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watcher = ProcessWatcher(-self.process.pid)
        self.wait_for("The worker is ready.")

    def stop(self) -> None:
        """Kill `dev`, and with it all that it has started, if it still runs."""
        self.process.kill()
        self.process.wait()
        self._watcher.release()

    @property
    def log(self) -> str:
        """Return what `dev` has written."""
        return (self.directory / "dev.log").read_text(errors="replace")

    def wait_for(self, *texts: str, times: int = 1) -> None:
        """Wait until each text has been written so many times."""
        try:
            wait_until(lambda: all(self.log.count(text) >= times for text in texts), 60, f"{texts}, {times} times")
        except AssertionError as error:
            error.add_note(self.log)
            raise

    def change(self, old: str, new: str) -> None:
        """Change the receiver's code, and wait until the worker runs with it."""
        times = self.log.count("The worker is ready.")
        path = self.directory / RECEIVER
        path.write_text(path.read_text().replace(old, new))
        self.wait_for("The worker is ready.", times=times + 1)

    def processes(self) -> list[psutil.Process]:
        """Return `dev` and all processes that it has started."""
        found = psutil.Process(self.process.pid)
        return [found, *found.children(recursive=True)]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project, with its tables."""
    made = Project(tmp_path_factory.mktemp("project"))
    made.manage("makemigrations", "admissions", "--verbosity", "0")
    made.manage("migrate", "--verbosity", "0")
    return made


@pytest.fixture
def project(migrated: Project) -> Iterator[Project]:
    """The project, with `dev` running."""
    migrated.start()
    yield migrated
    migrated.stop()


def gone(processes: list[psutil.Process]) -> bool:
    """Return whether processes have ended."""
    return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)


def test_dev_shows_deliveries_and_runs_changed_code(project: Project):
    """A save in another process is delivered; a changed receiver runs its new code; a failure shows its traceback.

    Ctrl-C ends the worker and the broker.
    """
    project.manage("shell", "-c", SAVE)
    project.wait_for("The cohort 1 was just created", "admissions.cohort_saved -> marketing.receivers.cohort_post_save")
    project.wait_for("  done  ")
    assert "\x1b" not in project.log

    project.change("was just created", "is brand-new")
    project.manage("shell", "-c", SAVE)
    project.wait_for("The cohort 2 is brand-new")

    project.change("    if created:", '    {}["slug"]\n    if created:')
    project.manage("shell", "-c", SAVE)
    project.wait_for("attempt 1, again in", "    Traceback (most recent call last):", "    KeyError: 'slug'")

    started = project.processes()
    assert len(started) >= 4  # dev, the broker, the worker, a process of its pool
    project.process.send_signal(signal.SIGINT)
    assert project.process.wait(30) == 0
    wait_until(lambda: gone(started), what="the end of the worker and the broker")


def test_a_killed_dev_leaves_no_process(project: Project):
    """The worker and the broker of a closed terminal end by themselves."""
    started = project.processes()
    project.process.kill()
    project.process.wait()
    wait_until(lambda: gone(started), what="the end of the worker and the broker")

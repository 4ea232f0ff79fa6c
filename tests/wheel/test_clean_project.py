"""The wheel in an empty environment and an unrelated project.

``make wheel`` builds it first. The environment is made with pip from the package registry, as a user makes it.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from typing import TYPE_CHECKING

from signalbus.embedded import EmbeddedValkey
from tests.servers import wait_until
from tests.wheel.clean_project import CleanProject

if TYPE_CHECKING:
    from pathlib import Path


def test_the_wheel_holds_only_signalbus(wheel: Path):
    """No module of this checkout's own project, tests or tools is in the wheel."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0].split("-")[0] for name in names} == {"signalbus", "django_signalbus"}
    assert "signalbus/py.typed" in names
    assert "signalbus/migrations/0001_initial.py" in names


def test_a_new_project_sends_and_receives(binaries: Path, tmp_path: Path):
    """After three commands and a worker, a saved order reaches another app's receiver in another process."""
    with EmbeddedValkey() as valkey:
        project = CleanProject(tmp_path, binaries, valkey.url)
        project.make_tables()
        with project.worker(concurrency=1):
            project.manage("shell", "-c", "from orders.models import Order; Order.objects.create(number='A-1')")
            (text,) = wait_until(lambda: project.rows("SELECT text FROM mail_mail"), 30, "the mail")

    number, created, pid = text.split()
    assert (number, created) == ("A-1", "True")
    assert int(pid) != os.getpid()


def test_an_installed_worker_without_settings_says_what_to_set(binaries: Path, tmp_path: Path):
    """An installed worker does not guess its settings, even beside a `config.settings` of the host's."""
    project = CleanProject(tmp_path, binaries)
    surroundings = {key: value for key, value in project.environment.items() if key != "DJANGO_SETTINGS_MODULE"}

    ended = subprocess.run(
        [str(binaries / "celery"), "-A", "signalbus", "worker"],
        cwd=tmp_path,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode != 0
    assert "set DJANGO_SETTINGS_MODULE" in ended.stderr

"""The wheel, in an empty environment and an unrelated project: what a stranger gets.

``make wheel`` builds it first. The environment is made with pip from the package registry, as the stranger's would be.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from signalbus.embedded import EmbeddedValkey
from tests.servers import CHECKOUT, wait_until

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = {
    "manage.py": """
        import os, sys
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
        """,
    "shop/__init__.py": "",
    "shop/settings.py": """
        import os
        from pathlib import Path
        SECRET_KEY = "a stranger's"
        INSTALLED_APPS = ["signalbus", "orders", "mail"]
        DATABASES = {"default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(__file__).parent.parent / "db.sqlite3",
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"},
        }}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        USE_TZ = True
        CELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]
        """,
    "orders/__init__.py": "",
    "orders/signals.py": """
        from signalbus import Signal
        order_placed = Signal()
        """,
    "orders/models.py": """
        from django.db import models
        from .signals import order_placed

        class Order(models.Model):
            number = models.CharField(max_length=20)

            class Meta:
                app_label = "orders"

            def save(self, *args, **kwargs):
                created = self._state.adding
                super().save(*args, **kwargs)
                order_placed.send(sender=Order, instance=self, created=created)
        """,
    "orders/migrations/__init__.py": "",
    "mail/__init__.py": "",
    "mail/receivers.py": """
        import os
        from pathlib import Path
        from signalbus import receiver
        from orders.models import Order
        from orders.signals import order_placed

        @receiver(order_placed, sender=Order)
        def send_mail(sender, instance, created, **kwargs):
            Path("mail.txt").write_text(f"{instance.number} {created} {os.getpid()}")
        """,
    "config/__init__.py": "",
    "config/settings.py": "raise RuntimeError('not the settings you are looking for')",
}


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel that was built last."""
    wheels = sorted((CHECKOUT / "dist").glob("*.whl"))
    assert wheels, "there is no wheel in dist/: run `make wheel`, which builds it first"
    return wheels[-1]


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that holds the wheel, and what it asks for."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [
        str(venv / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        str(wheel),
    ]
    subprocess.run(install, check=True, cwd=venv)
    return venv / "bin"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An unrelated project."""
    for name, text in PROJECT.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip())
    return tmp_path


def environment(broker: str = "redis://127.0.0.1:1/0") -> dict[str, str]:
    """What the stranger's shell has: nothing of this checkout."""
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "DJANGO_SETTINGS_MODULE"}}
    return {**kept, "CELERY_BROKER_URL": broker}


def test_the_wheel_holds_only_signalbus(wheel: Path):
    """No module of this checkout's own project, tests or tools gets into anybody's site-packages."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0].split("-")[0] for name in names} == {"signalbus", "django_signalbus"}
    assert "signalbus/py.typed" in names
    assert "signalbus/migrations/0001_initial.py" in names


def test_a_strangers_project_sends_and_receives(binaries: Path, project: Path):
    """Three commands and a worker: a saved order reaches another app's receiver in another process."""
    with EmbeddedValkey() as valkey:
        surroundings = {**environment(valkey.url), "DJANGO_SETTINGS_MODULE": "shop.settings"}

        def manage(*arguments: str) -> None:
            subprocess.run(
                [str(binaries / "python"), "manage.py", *arguments], cwd=project, env=surroundings, check=True
            )

        manage("makemigrations", "orders", "--verbosity", "0")
        manage("migrate", "--verbosity", "0")
        manage("check", "--fail-level", "WARNING")
        log = (project / "worker.log").open("wb")
        command = [str(binaries / "celery"), "-A", "signalbus", "worker", "-l", "info", "-c", "1"]
        worker = subprocess.Popen(command, cwd=project, env=surroundings, stdout=log, stderr=log)
        try:
            manage("shell", "-c", "from orders.models import Order; Order.objects.create(number='A-1')")
            mail = project / "mail.txt"
            wait_until(lambda: mail.exists() and len(mail.read_text().split()) == 3, 30, "the mail")
        finally:
            worker.terminate()
            worker.wait(30)
            log.close()

    number, created, pid = mail.read_text().split()
    assert (number, created) == ("A-1", "True")
    assert int(pid) != os.getpid()


def test_an_installed_worker_without_settings_says_what_to_set(binaries: Path, project: Path):
    """Even beside a `config.settings` of the host's, an installed worker guesses nothing."""
    ended = subprocess.run(
        [str(binaries / "celery"), "-A", "signalbus", "worker"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode != 0
    assert "set DJANGO_SETTINGS_MODULE" in ended.stderr

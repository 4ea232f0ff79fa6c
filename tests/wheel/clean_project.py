"""A project that has only the wheel: its files, its commands, its workers, its sender."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from textwrap import dedent
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.servers import ProcessWatcher, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

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
        SECRET_KEY = "of the clean project"
        INSTALLED_APPS = ["signalbus", "orders", "mail"]
        DATABASES = {"default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(__file__).parent.parent / "db.sqlite3",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;", "timeout": 60,
            },
        }}
        if "SHOP_HOST" in os.environ:
            DATABASES["default"] = {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": os.environ["SHOP_HOST"], "USER": "postgres", "NAME": os.environ["SHOP_NAME"],
            }
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
        from django.db import models, transaction
        from .signals import order_placed

        class Order(models.Model):
            number = models.CharField(max_length=20)

            class Meta:
                app_label = "orders"

            def save(self, *args, **kwargs):
                created = self._state.adding
                with transaction.atomic():
                    super().save(*args, **kwargs)
                    order_placed.send(sender=Order, instance=self, created=created)
        """,
    "orders/migrations/__init__.py": "",
    "orders/management/__init__.py": "",
    "orders/management/commands/__init__.py": "",
    "orders/management/commands/place.py": """
        import sys
        from django.core.management.base import BaseCommand
        from orders.models import Order
        from signalbus import __version__

        class Command(BaseCommand):
            help = "Place as many orders as each line of the input says, and answer each line."

            def handle(self, **options):
                placed = 0
                for line in sys.stdin:
                    for _ in range(int(line)):
                        placed += 1
                        Order.objects.create(number=f"{__version__}/{placed}")
                    print(placed, flush=True)
        """,
    "mail/__init__.py": "",
    "mail/models.py": """
        from django.db import models

        class Mail(models.Model):
            order = models.BigIntegerField()
            text = models.TextField()
        """,
    "mail/migrations/__init__.py": "",
    "mail/receivers.py": """
        import os, time
        from mail.models import Mail
        from signalbus import receiver
        from orders.models import Order
        from orders.signals import order_placed

        @receiver(order_placed, sender=Order)
        def write_mail(sender, instance, created, **kwargs):
            time.sleep(0.02)
            Mail.objects.create(order=instance.pk, text=f"{instance.number} {created} {os.getpid()}")
        """,
    "config/__init__.py": "",
    "config/settings.py": "raise RuntimeError('not the settings you are looking for')",
}
FOREIGN = ("PYTHONPATH", "DATABASE_URL")  # the clean project must not inherit them from the shell of this checkout


class Sender:
    """A process of that project that places orders on command, as a context manager.

    Args:
        process: ``manage.py place``, with pipes.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._watcher = ProcessWatcher(-process.pid)
        self._told = self._placed = 0

    def tell(self, count: int) -> None:
        """Have it place orders, and do not wait."""
        assert self._process.stdin is not None
        self._told += count
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Wait until all its orders are committed, and ``save()`` has returned."""
        assert self._process.stdout is not None
        while self._placed < self._told:
            line = self._process.stdout.readline()
            assert line, f"the sender ended with {self._process.wait(10)}, and {self._placed} orders"
            self._placed = int(line)

    def place(self, count: int) -> None:
        """Have it place orders, and wait until it has."""
        self.tell(count)
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._watcher.release()


class CleanProject:
    """The project in a folder, with its environment.

    Args:
        directory: the project's; it is written there if there is none.
        binaries: the folder of its environment's programs.
        broker: its CELERY_BROKER_URL.
        postgres: the DATABASE_URL of its database; SQLite if None.
    """

    def __init__(
        self, directory: Path, binaries: Path, broker: str = "redis://127.0.0.1:1/0", postgres: str | None = None
    ) -> None:
        self.directory = directory
        self.binaries = binaries
        self._postgres = postgres
        self.settings = {"CELERY_BROKER_URL": broker, "DJANGO_SETTINGS_MODULE": "shop.settings"}
        if postgres is not None:
            self.settings |= {
                "SHOP_HOST": parse_qs(urlsplit(postgres).query)["host"][0],
                "SHOP_NAME": urlsplit(postgres).path.lstrip("/"),
            }
        for name, text in PROJECT.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text).lstrip())

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables of its shell."""
        return {key: value for key, value in os.environ.items() if key not in FOREIGN} | self.settings

    def manage(self, *arguments: str) -> str:
        """Run a command of ``manage.py``, and return its output."""
        command = [str(self.binaries / "python"), "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, check=False, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def make_tables(self) -> None:
        """Write the migrations of its own apps, run all, and have the checks look at it."""
        self.manage("makemigrations", "orders", "mail", "--verbosity", "0")
        self.manage("migrate", "--verbosity", "0")
        self.manage("check", "--fail-level", "WARNING", "--database", "default")

    def worker(self, concurrency: int = 2) -> Worker:
        """Return a worker, which is not started yet."""
        return Worker(
            self.directory,
            concurrency=concurrency,
            environment={**self.settings, **dict.fromkeys(FOREIGN)},
            python=self.binaries / "python",
            cwd=self.directory,
            timeout=60,
        )

    def sender(self) -> Sender:
        """Start a process that places orders."""
        with (self.directory / "sender.log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.binaries / "python"), "manage.py", "place"],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        return Sender(process)

    def rows(self, query: str) -> list[Any]:
        """Ask its database for the first column of a query."""
        if self._postgres is not None:
            with psycopg.connect(self._postgres) as server:
                return [row[0] for row in server.execute(query.encode())]
        with closing(sqlite3.connect(self.directory / "db.sqlite3", timeout=60)) as file:
            return [row[0] for row in file.execute(query)]

    def can_write(self) -> bool:
        """Return whether a transaction can begin to write within a second: on SQLite one at a time can."""
        if self._postgres is not None:
            return True
        with closing(sqlite3.connect(self.directory / "db.sqlite3", timeout=1, isolation_level=None)) as file:
            try:
                file.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                    return False
                raise
            file.execute("ROLLBACK")
            return True

    def orders(self, of: str = "") -> list[int]:
        """Return the keys of its orders, sorted.

        Args:
            of: the version of the bus that their sender had; of all if empty.
        """
        return sorted(self.rows(f"SELECT id FROM orders_order WHERE number LIKE '{of}%'"))

    def mails(self) -> list[int]:
        """Return the orders for which its receiver has written a mail, sorted."""
        return sorted(self.rows('SELECT "order" FROM mail_mail'))

    def open(self) -> int:
        """Return how many deliveries are open."""
        return len(self.rows("SELECT id FROM signalbus_delivery WHERE ended_at IS NULL AND state <> 'dead'"))

    def audit(self) -> dict[str, Any]:
        """Return its audit."""
        books: dict[str, Any] = json.loads(self.manage("signalbus", "audit", "--json"))
        return books

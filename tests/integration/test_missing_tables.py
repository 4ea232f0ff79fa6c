"""A signal that is sent before ``migrate`` has made the tables: the error names the remedy, and breaks nothing else."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, connection, connections, transaction
from django.db.migrations import Migration, RunPython
from django.db.migrations.executor import MigrationExecutor
from django.test import override_settings

from signalbus.exceptions import MissingTables
from signalbus.ledger import operations as ledger
from signalbus.ledger.base.missing_tables import SUFFICIENT
from tests.servers import default_database

from .bus import connect, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_django.plugin import DjangoDbBlocker

    from signalbus import Signal

LATER = timedelta(hours=1)
DEPENDENCY = f'add ("signalbus", "{SUFFICIENT}") to the dependencies'


@pytest.fixture
def empty_database(
    database: str, request: pytest.FixtureRequest, tmp_path: Path, broker_url: str, django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """A database without tables, which is this process's default one."""
    url = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    if database == "postgres":
        url = request.getfixturevalue("postgres_server").create()
    with django_db_blocker.unblock(), default_database(url):
        yield url


@pytest.fixture
def durable() -> Signal:
    """A durable signal with a receiver."""
    signal = new_signal(durable=True)

    def on_seeded(**kwargs: Any) -> None:
        """Receive."""

    connect(signal, on_seeded)
    return signal


def migrating(function: Callable[[], object], *, atomic: bool = True, using: str = "default") -> None:
    """Call a function as a data migration does."""

    def forward(apps: Any, schema_editor: Any) -> None:
        function()

    executor = MigrationExecutor(connections[using])
    options = {"operations": [RunPython(forward)], "atomic": atomic}
    plan = [(type("Migration", (Migration,), options)("9999_test", "admissions"), False)]
    executor.migration_plan = lambda *args, **kwargs: plan  # type: ignore[method-assign]
    executor.migrate([], plan=plan)


def migrate_to(name: str) -> None:
    """Migrate the tables of signalbus only."""
    call_command("migrate", "signalbus", name, verbosity=0)


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("form", ["send", "send_many", "send_later", "unique"])
def test_the_error_in_a_migration_names_the_dependency_to_add(empty_database, durable, form: str, atomic: bool):
    """Each form of sending names the migration of signalbus that has to come first."""
    if form == "unique":
        durable = new_signal(durable=True, unique=True)
        connect(durable, lambda **kwargs: None, "on_unique")
    sends: dict[str, Callable[[], object]] = {
        "send_many": lambda: durable.send_many(None, [{"n": 1}]),
        "send_later": lambda: durable.send_later(LATER, None, n=1),
    }
    with pytest.raises(MissingTables) as caught:
        migrating(sends.get(form, lambda: durable.send(None, n=1)), atomic=atomic)
    assert DEPENDENCY in str(caught.value)
    assert "manage.py migrate signalbus" in str(caught.value)


@pytest.mark.parametrize("atomic", [True, False])
def test_a_robust_send_leaves_the_migration_usable(empty_database, durable, caplog, atomic: bool):
    """The error is the receiver's response; the migration goes on, and its other changes are committed."""

    def seed() -> None:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE seeded (n integer)")
        ((_, response),) = durable.send_robust(None, n=1)
        assert isinstance(response, MissingTables)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO seeded VALUES (42)")

    migrating(seed, atomic=atomic)

    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM seeded")
        assert cursor.fetchall() == [(42,)]
    (told,) = [record for record in caplog.records if record.name == "signalbus"]
    assert DEPENDENCY in told.getMessage()


def test_a_migration_of_another_database_fails_before_its_commit(empty_database, durable, tmp_path):
    """``migrate --database other`` runs before the ledger's database is migrated: nothing is lost after the commit."""
    settings = {"default": {}, "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "other")}}
    connections.settings["other"] = connections.configure_settings(settings)["other"]
    try:
        with pytest.raises(MissingTables, match=r"manage\.py migrate signalbus"):
            migrating(lambda: durable.send(None, n=1), using="other")
        migrate_to(SUFFICIENT)
        migrating(lambda: durable.send(None, n=1), using="other")
    finally:
        connections["other"].close()
        del connections["other"]
        del connections.settings["other"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT receiver, state FROM signalbus_delivery")
        assert cursor.fetchall() == [("on_seeded", "published")]


def test_the_named_dependency_is_enough(empty_database, durable):
    """A migration with it can send, also if later migrations of signalbus were not applied yet."""
    migrate_to(SUFFICIENT)
    migrating(lambda: durable.send(None, n=1))
    with connection.cursor() as cursor:
        cursor.execute("SELECT receiver, state FROM signalbus_delivery")
        assert cursor.fetchall() == [("on_seeded", "published")]


def test_tables_of_an_earlier_version_are_reported(empty_database, durable):
    """After an upgrade without ``migrate`` a column is missing, and the remedy is the same."""
    migrate_to("0001_initial")
    with pytest.raises(MissingTables, match=r"manage\.py migrate signalbus"):
        durable.send(None, n=1)


def test_the_error_outside_of_a_migration_names_the_remedy(empty_database, durable):
    """A deployment forgot ``migrate``; the error is a DatabaseError."""
    with pytest.raises(DatabaseError, match=r"manage\.py migrate signalbus"):
        durable.send(None, n=1)
    with pytest.raises(MissingTables), transaction.atomic():
        durable.send(None, n=1)


def test_without_migrations_the_remedy_is_syncdb(empty_database, durable):
    """If MIGRATION_MODULES leaves signalbus's migrations out, no dependency can be added."""
    with override_settings(MIGRATION_MODULES={"signalbus": None}):
        with pytest.raises(MissingTables, match="--run-syncdb") as caught:
            durable.send(None, n=1)
        assert "dependencies" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [["failed"], ["failed", "--json"], ["retry", "--all"], ["purge"], ["audit", "--wait", "0"], ["sweep"]],
)
def test_each_command_says_that_the_tables_are_missing(empty_database, command: list[str]):
    """Each command names the command that makes the tables, without a traceback."""
    with pytest.raises(CommandError, match=r"manage\.py migrate signalbus"):
        call_command("signalbus", *command)


@override_settings(SILENCED_SYSTEM_CHECKS=["signalbus.E002", "signalbus.E003"])  # of signals that other tests made
def test_check_of_the_database_says_that_the_tables_are_missing(empty_database, monkeypatch):
    """``check --database`` reports an error with the remedy until ``migrate`` has run; ``migrate`` itself is not
    stopped.
    """
    monkeypatch.setattr(sys, "argv", ["manage.py", "check", "--database", "default"])
    with pytest.raises(SystemCheckError, match=r"signalbus\.E005"):
        call_command("check", databases=["default"])
    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    call_command("migrate", verbosity=0, skip_checks=False)
    monkeypatch.setattr(sys, "argv", ["manage.py", "check", "--database", "default"])
    call_command("check", databases=["default"])
    assert ledger.missing() is None
    assert rows() == []

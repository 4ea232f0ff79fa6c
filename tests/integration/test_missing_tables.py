"""A signal that is sent before ``migrate`` has made the tables: the error says what to do, and breaks nothing else."""

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

from signalbus import Signal, ledger
from signalbus.exceptions import MissingTables
from signalbus.ledger.base.missing_tables import SUFFICIENT
from tests.servers import default_database

from .bus import connect, new_signal, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_django.plugin import DjangoDbBlocker

LATER = timedelta(hours=1)
DEPENDENCY = f'add ("signalbus", "{SUFFICIENT}") to the dependencies'


@pytest.fixture
def empty_database(
    database: str, request: pytest.FixtureRequest, tmp_path: Path, broker_url: str, django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """A database without any table, which is this process's default one."""
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
    """Migrate the tables of signalbus, and nothing else."""
    call_command("migrate", "signalbus", name, verbosity=0)


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("form", ["send", "send_many", "send_later", "unique"])
def test_a_migration_that_sends_is_told_which_dependency_to_add(empty_database, durable, form: str, atomic: bool):
    """The error of each form of sending names the migration of signalbus that has to come first."""
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
    """The error is the response of the receiver; the migration goes on, and its other changes are committed."""

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


def test_a_migration_of_another_database_is_told_before_its_commit(empty_database, durable, tmp_path):
    """``migrate --database other``, before the database of the ledger is migrated: nothing is lost after the commit."""
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


def test_the_dependency_that_is_named_is_enough(empty_database, durable):
    """A migration that depends on it can send, also when signalbus has later migrations that were not applied yet."""
    migrate_to(SUFFICIENT)
    migrating(lambda: durable.send(None, n=1))
    with connection.cursor() as cursor:
        cursor.execute("SELECT receiver, state FROM signalbus_delivery")
        assert cursor.fetchall() == [("on_seeded", "published")]


def test_tables_of_an_earlier_version_are_told_of(empty_database, durable):
    """After an upgrade without ``migrate`` a column is missing, and the remedy is the same."""
    migrate_to("0001_initial")
    with pytest.raises(MissingTables, match=r"manage\.py migrate signalbus"):
        durable.send(None, n=1)


def test_sending_outside_of_a_migration_is_told_the_remedy(empty_database, durable):
    """A view in a deployment that forgot ``migrate`` says so; it is a DatabaseError, as before."""
    with pytest.raises(DatabaseError, match=r"manage\.py migrate signalbus"):
        durable.send(None, n=1)
    with pytest.raises(MissingTables), transaction.atomic():
        durable.send(None, n=1)


def test_without_migrations_the_remedy_is_syncdb(empty_database, durable):
    """Where MIGRATION_MODULES leaves signalbus's migrations out, no dependency could be added."""
    with override_settings(MIGRATION_MODULES={"signalbus": None}):
        with pytest.raises(MissingTables, match="--run-syncdb") as caught:
            durable.send(None, n=1)
        assert "dependencies" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [["failed"], ["failed", "--json"], ["retry", "--all"], ["purge"], ["audit", "--wait", "0"], ["sweep"]],
)
def test_each_command_says_that_the_tables_are_missing(empty_database, command: list[str]):
    """Not with a traceback, but with the command that makes them."""
    with pytest.raises(CommandError, match=r"manage\.py migrate signalbus"):
        call_command("signalbus", *command)


def test_check_of_the_database_says_that_the_tables_are_missing(empty_database, monkeypatch):
    """``check --database`` is an error with the remedy until ``migrate`` has run; ``migrate`` itself is not stopped."""
    monkeypatch.setattr(sys, "argv", ["manage.py", "check", "--database", "default"])
    with pytest.raises(SystemCheckError, match=r"signalbus\.E005"):
        call_command("check", databases=["default"])
    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    call_command("migrate", verbosity=0, skip_checks=False)
    monkeypatch.setattr(sys, "argv", ["manage.py", "check", "--database", "default"])
    call_command("check", databases=["default"])
    assert ledger.missing() is None
    assert rows() == []

"""The private parts of Django's migrations that the library uses are unchanged."""

from __future__ import annotations

import sys

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.signals import post_migrate, pre_migrate

from signalbus.compat.django_internals import EXECUTOR, databases_being_migrated


class TestMigratingDatabases:
    @pytest.mark.django_db
    def test_the_migrate_command_is_found(self):
        """While ``migrate`` runs, its database is found, also when no executor runs yet or any more."""
        found: list[list[str]] = []

        def look(**kwargs):
            found.append(list(databases_being_migrated()))

        pre_migrate.connect(look)
        post_migrate.connect(look)
        try:
            call_command("migrate", verbosity=0)
        finally:
            pre_migrate.disconnect(look)
            post_migrate.disconnect(look)
        assert found
        assert all(databases == ["default"] for databases in found)
        assert not list(databases_being_migrated())

    @pytest.mark.django_db
    def test_a_lone_executor_is_found(self, monkeypatch):
        """An executor that runs without the command is found with its database."""
        found: list[str] = []

        def look(recorder):
            found.extend(databases_being_migrated())
            return True

        executor = MigrationExecutor(connections["default"])
        monkeypatch.setattr(MigrationRecorder, "has_table", look)
        executor.migrate([], plan=[])
        assert set(found) == {"default"}
        assert not list(databases_being_migrated())

    def test_the_stack_is_not_read_without_an_executor(self, monkeypatch):
        """A process that has not imported the executor does not look at its stack."""
        monkeypatch.delitem(sys.modules, EXECUTOR)
        monkeypatch.setattr(sys, "_getframe", None)
        assert not list(databases_being_migrated())

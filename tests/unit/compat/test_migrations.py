"""What we use of others' private parts is there, and means what we take it for."""

from __future__ import annotations

import sys

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.signals import post_migrate, pre_migrate

from signalbus.compat.django import EXECUTOR, databases_being_migrated


class TestDatabasesBeingMigrated:
    @pytest.mark.django_db
    def test_the_command(self):
        """While ``migrate`` runs, its database is found, although no executor runs yet, or any more."""
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
    def test_an_executor(self, monkeypatch):
        """An executor that runs by itself is found with its database."""
        found: list[str] = []

        def look(recorder):
            found.extend(databases_being_migrated())
            return True

        executor = MigrationExecutor(connections["default"])
        monkeypatch.setattr(MigrationRecorder, "has_table", look)
        executor.migrate([], plan=[])
        assert set(found) == {"default"}
        assert not list(databases_being_migrated())

    def test_who_never_migrates_pays_nothing(self, monkeypatch):
        """Where no executor has been imported, no stack is looked through."""
        monkeypatch.delitem(sys.modules, EXECUTOR)
        monkeypatch.setattr(sys, "_getframe", None)
        assert not list(databases_being_migrated())

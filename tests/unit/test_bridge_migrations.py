"""Rows that a migration saves are not carried while its database is migrated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.migrations import Migration, RunPython
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.signals import (
    post_delete,
    post_migrate,
    post_save,
    pre_migrate,
)
from django.dispatch import Signal as DjangoSignal

from signalbus import Signal, Snapshot, receiver
from signalbus.testing import captured
from tasks.admissions.models import Academy

HERE = __name__

stocktaking = DjangoSignal()
restocked = Signal()

pytestmark = pytest.mark.usefixtures("restored_bridges")


def on_change(sender, **kwargs):
    """Receive."""


def on_change_too(sender, **kwargs):
    """Receive as well."""


def migrating(function):
    """Run a function as a migration does."""
    executor = MigrationExecutor(connections["default"])
    migration = type("Migration", (Migration,), {"operations": [RunPython(function)]})("9999_test", "admissions")
    plan = [(migration, False)]
    executor.migration_plan = lambda *args, **kwargs: plan  # type: ignore[method-assign]
    try:
        executor.migrate([], plan=plan)
    finally:
        executor.recorder.record_unapplied("admissions", "9999_test")


@pytest.mark.django_db
class TestMigrations:
    @pytest.fixture(autouse=True)
    def listen(self):
        """Connect to a signal of a database."""
        receiver(stocktaking)(on_change)

    def count(self, **payload):
        """Count the messages of one send."""
        with captured() as sent:
            stocktaking.send(None, **payload)
        return len(sent)

    @pytest.fixture
    def during(self):
        """Call what the test puts here while ``migrate`` runs."""
        calls: list[Any] = []

        def call(using, **kwargs):
            for each in calls:
                each()

        pre_migrate.connect(call)
        post_migrate.connect(call)
        yield calls
        pre_migrate.disconnect(call)
        post_migrate.disconnect(call)

    def test_nothing_is_carried_while_migrate_runs(self, during):
        """After ``migrate`` has ended, rows are carried again."""
        heard = []
        during.append(lambda: heard.append(self.count()))
        call_command("migrate", verbosity=0)
        assert len(heard) > 2
        assert set(heard) == {0}
        assert self.count() == 1

    def test_a_failed_migrate_has_ended(self, during):
        """Rows are carried again after the error, and not during the next ``migrate``."""
        during.append(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call_command("migrate", verbosity=0)
        assert self.count() == 1
        heard = []
        during[:] = [lambda: heard.append(self.count())]
        call_command("migrate", verbosity=0)
        assert set(heard) == {0}
        assert self.count() == 1

    def test_a_save_in_another_thread_is_carried(self, during):
        """Only the thread that migrates is left out."""
        heard = []
        with ThreadPoolExecutor(1) as pool:
            during.append(lambda: heard.append(pool.submit(self.count).result(timeout=10)))
            call_command("migrate", verbosity=0)
        assert set(heard) == {1}

    def test_a_save_in_another_database_is_carried(self, during):
        """Only the database that is migrated is left out."""
        heard = []
        during.append(lambda: heard.append((self.count(using="default"), self.count(using="other"))))
        call_command("migrate", verbosity=0)
        assert set(heard) == {(0, 1)}

    def test_migrations_are_carried_on_request(self, during):
        """``migrations=True`` carries their rows."""
        heard = []
        receiver(stocktaking, migrations=True)(on_change_too)
        during.append(lambda: heard.append(self.count()))
        call_command("migrate", verbosity=0)
        assert set(heard) == {1}

    def test_the_rows_of_django_migrations_are_not_carried(self, caplog):
        """Their model is of no installed app; signals of ours leave them out too."""

        def forward(sender, instance, **kwargs):
            restocked.send(sender=sender, instance=instance)
            restocked.send_many(sender, [{"instance": instance}])

        post_save.connect(forward)
        restocked.connect(on_change)
        try:
            with captured() as sent:
                MigrationRecorder(connections["default"]).record_applied("admissions", "9999_test")
        finally:
            post_save.disconnect(forward)
            restocked.disconnect(on_change)
        assert not sent
        assert not caplog.records


@pytest.mark.django_db(transaction=True)
class TestExecutors:
    """Tests of migrations use an executor directly, without the command."""

    def test_a_row_of_the_apps_model_is_not_carried(self):
        """Rows that the migration saves with the app's own model are carried only after it."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            migrating(lambda apps, editor: Academy.objects.create(name="Web", slug="web"))
            assert not sent
            Academy.objects.create(name="Data", slug="data")
        assert len(sent) == 1

    @pytest.mark.parametrize("asked", [False, True])
    def test_a_row_of_a_historical_model_is_not_carried(self, asked, caplog):
        """No worker has the class of a historical model."""
        receiver([post_save, post_delete], migrations=asked, extract={"pk": lambda instance, **kw: instance.pk})(
            on_change
        )
        past = MigrationExecutor(connections["default"]).loader.project_state().apps.get_model("admissions", "Academy")
        with captured() as sent:
            past.objects.create(name="Web", slug="web").delete()
        assert not sent
        assert not caplog.records

    def test_a_signal_leaves_out_historical_instances(self):
        """A send with a historical instance in its payload is left out; the next one is sent."""
        restocked.connect(on_change)
        past = MigrationExecutor(connections["default"]).loader.project_state().apps.get_model("admissions", "Academy")
        academy = past.objects.create(name="Web", slug="web")
        try:
            with captured() as sent:
                assert restocked.send(None, instance=academy).id is None
                assert restocked.send(past).id is None
                many = restocked.send_many(None, [{"a": Snapshot(academy)}, {"a": 1}])
        finally:
            restocked.disconnect(on_change)
        assert [message.id for message in sent] == [many[1]]
        assert many[0] is None

"""While a database is migrated, what its migrations save is not carried."""

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
        """Listen to a signal of a database."""
        receiver(stocktaking)(on_change)

    def count(self, **payload):
        """Count what is carried of one sending."""
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

    def test_migrate_is_quiet_and_ends(self, during):
        """While ``migrate`` runs nothing is carried, to its very end; when it is over, it is as before."""
        heard = []
        during.append(lambda: heard.append(self.count()))
        call_command("migrate", verbosity=0)
        assert len(heard) > 2
        assert set(heard) == {0}
        assert self.count() == 1

    def test_one_that_failed_has_ended(self, during):
        """After an error it is as before; and the next one is quiet again."""
        during.append(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call_command("migrate", verbosity=0)
        assert self.count() == 1
        heard = []
        during[:] = [lambda: heard.append(self.count())]
        call_command("migrate", verbosity=0)
        assert set(heard) == {0}
        assert self.count() == 1

    def test_another_thread_is_heard(self, during):
        """Who saves while another thread migrates is carried."""
        heard = []
        with ThreadPoolExecutor(1) as pool:
            during.append(lambda: heard.append(pool.submit(self.count).result(timeout=10)))
            call_command("migrate", verbosity=0)
        assert set(heard) == {1}

    def test_another_database_is_heard(self, during):
        """What is saved elsewhere by the thread that migrates is carried."""
        heard = []
        during.append(lambda: heard.append((self.count(using="default"), self.count(using="other"))))
        call_command("migrate", verbosity=0)
        assert set(heard) == {(0, 1)}

    def test_asked_for(self, during):
        """``migrations=True`` carries what migrations save."""
        heard = []
        receiver(stocktaking, migrations=True)(on_change_too)
        during.append(lambda: heard.append(self.count()))
        call_command("migrate", verbosity=0)
        assert set(heard) == {1}

    def test_the_table_of_migrations_is_in_nobodys_way(self, caplog):
        """The rows of ``django_migrations`` are of no installed app's model: left out, also by a signal of ours."""

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
    """Tests of migrations use an executor directly: nothing announces it."""

    def test_a_row_of_the_present(self):
        """What a migration saves with the app's own model is not carried, and afterwards it is."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            migrating(lambda apps, editor: Academy.objects.create(name="Web", slug="web"))
            assert not sent
            Academy.objects.create(name="Data", slug="data")
        assert len(sent) == 1

    @pytest.mark.parametrize("asked", [False, True])
    def test_a_row_of_the_past(self, asked, caplog):
        """A migration's own model of the past is never carried, nor saved in vain: no worker has such a class."""
        receiver([post_save, post_delete], migrations=asked, extract={"pk": lambda instance, **kw: instance.pk})(
            on_change
        )
        past = MigrationExecutor(connections["default"]).loader.project_state().apps.get_model("admissions", "Academy")
        with captured() as sent:
            past.objects.create(name="Web", slug="web").delete()
        assert not sent
        assert not caplog.records

    def test_a_signal_of_ours(self):
        """An instance of the past among the payload leaves one of our signals out as well; the next one travels."""
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

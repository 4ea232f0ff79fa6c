"""Rows in other databases, rows that are gone, unsaved instances and relations, as a receiver gets them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import dj_database_url
import pytest
from django.db import connection, connections, transaction
from django.db.models import F
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from signalbus import Retry, Signal
from signalbus.models import Delivery
from tasks.admissions.models import Academy, Cohort

from .bus import Bus, connect, new_signal, only, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONCE = Retry(max_attempts=1)


@pytest.fixture
def other(database: str, database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A second database with the same tables."""
    if database == "postgres":
        url = request.getfixturevalue("postgres_server").create(template=request.getfixturevalue("migrated_postgres"))
    else:
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), tmp_path / "other.sqlite3")
        url = f"sqlite:///{tmp_path / 'other.sqlite3'}"
    connections.settings["other"] = connections.configure_settings(
        {"default": {}, "other": dict(dj_database_url.parse(url))}
    )["other"]
    yield "other"
    connections["other"].close()
    del connections["other"]
    del connections.settings["other"]
    if database == "postgres":
        request.getfixturevalue("postgres_server").drop(url)


class WriteToDefault:
    """A router whose replica is the other database."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        """Return the replica."""
        return "other"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        """Return the primary."""
        return "default"


class WriteAcademiesElsewhere:
    """A router that stores a model in another database."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        """Return the other database for academies."""
        return "other" if model is Academy else None

    db_for_read = db_for_write


@pytest.fixture
def seen(signal: Signal) -> list[tuple[str, str]]:
    """The names of the academies that a receiver got, and their databases."""
    told: list[tuple[str, str]] = []

    def receiver(sender, instance, **kwargs):
        told.append((instance.name, instance._state.db))

    connect(signal, receiver, "wire.seer")
    return told


def test_a_row_of_another_database_is_loaded_from_there(bus: Bus, signal: Signal, other: str, seen: list[Any]):
    """The router's database has a row of the same key, which is not loaded."""
    here = Academy.objects.create(name="here", slug="a")
    there = Academy.objects.using(other).create(pk=here.pk, name="there", slug="a")
    signal.send(None, instance=there)
    signal.send(None, instance=Academy.objects.using(other).get(pk=there.pk))
    signal.send(None, instance=here)
    bus.work()

    assert seen == [("there", other), ("there", other), ("here", "default")]
    assert rows() == []


def test_an_instance_of_a_replica_is_loaded_from_the_primary(bus: Bus, signal: Signal, other: str, seen: list[Any]):
    """The receiver gets the row of the primary."""
    here = Academy.objects.create(name="here", slug="a")
    Academy.objects.using(other).create(pk=here.pk, name="old", slug="a")
    with override_settings(DATABASE_ROUTERS=[WriteToDefault()]):
        read = Academy.objects.get(pk=here.pk)
        assert read.name == "old"
        signal.send(None, instance=read)
        bus.work()

    assert seen == [("here", "default")]


def test_a_model_of_another_database_is_loaded_from_there(bus: Bus, signal: Signal, other: str, seen: list[Any]):
    """Rows are read where the router writes the model."""
    with override_settings(DATABASE_ROUTERS=[WriteAcademiesElsewhere()]):
        signal.send(None, instance=Academy.objects.create(name="there", slug="a"))
        bus.work()

    assert seen == [("there", other)]


def test_a_row_that_is_gone_is_replaced_by_its_values(bus: Bus, signal: Signal):
    """Only for receivers with ``on_missing="snapshot"``; the others get an error."""
    seen: list[Any] = []

    def receiver(sender, instance, **kwargs):
        seen.append((instance.name, instance.pk, instance._state.adding))

    connect(signal, receiver, "stands in", on_missing="snapshot")
    connect(signal, lambda **kwargs: seen.append("skips"), "skips")
    connect(signal, lambda **kwargs: seen.append("fails"), "fails", on_missing="fail")
    connect(signal, lambda **kwargs: seen.append("on a queue"), "on a queue", queue="email")
    academy = Academy.objects.create(name="A", slug="a")
    pk = academy.pk
    with transaction.atomic():
        signal.send(None, instance=academy)
        academy.delete()
    bus.work()
    bus.work("email")

    assert seen == [("A", pk, False)]
    assert rows() == [("fails", "pending", 1), ("on a queue", "skipped", 1), ("skips", "skipped", 1)]


def test_an_existing_row_is_loaded_for_a_snapshot_receiver(bus: Bus, signal: Signal):
    """The receiver gets the fresh values, in one query."""
    seen: list[Any] = []
    connect(signal, lambda instance, **kwargs: seen.append(instance.name), "stands in", on_missing="snapshot")
    academy = Academy.objects.create(name="before", slug="a")
    signal.send(None, instance=academy)
    Academy.objects.update(name="after")
    bus.work()

    assert seen == ["after"]


def test_a_retried_delivery_still_has_its_values(bus: Bus, signal: Signal):
    """The ledger keeps them too."""
    seen: list[Any] = []

    def receiver_that_fails_once(sender, instance, **kwargs):
        seen.append(instance.name)
        if len(seen) == 1:
            raise ValueError("once")

    connect(signal, receiver_that_fails_once, on_missing="snapshot")
    academy = Academy.objects.create(name="A", slug="a")
    signal.send(None, instance=academy)
    bus.work()
    academy.delete()
    bus.come_again()

    assert seen == ["A", "A"]
    assert only().state == "done"


def test_an_instance_that_is_not_saved_yet_arrives_unsaved(bus: Bus, signal: Signal):
    """A send before ``super().save()`` works, and the robust form does not raise."""
    seen: list[Any] = []
    connect(
        signal, lambda instance, **kwargs: seen.append((instance.name, instance.pk, instance._state.adding)), "seer"
    )
    signal.send(None, instance=Academy(name="new", slug="a"))
    signal.send_robust(None, instance=Academy(name="new", slug="a"))
    bus.work()

    assert seen == [("new", None, True)] * 2
    assert rows() == []


def test_an_expression_is_left_out_of_the_values(bus: Bus, signal: Signal):
    """A receiver that reads the field gets the database's value."""
    academy = Academy.objects.create(name="A", slug="a")
    cohort = Cohort.objects.create(name="C", slug="c", academy=academy, rating=1)
    seen: list[Any] = []
    connect(signal, lambda instance, **kwargs: seen.append(instance.rating), "seer", on_missing="snapshot")
    cohort.rating = F("rating") + 1
    signal.send(None, instance=cohort)
    Cohort.objects.filter(pk=cohort.pk).update(rating=cohort.rating)
    bus.work()

    assert seen == [2]


@pytest.mark.parametrize("count", [1, 50])
def test_relations_are_loaded_with_the_rows(bus: Bus, signal: Signal, count: int):
    """One query loads both, only for receivers with the option."""
    seen: list[Any] = []

    async def receiver(sender, instance, others, **kwargs):
        seen.append([cohort.academy.name for cohort in [instance, *others]])

    connect(signal, receiver, "asks", select_related={"instance": "academy", "others": ("academy",)})
    academy = Academy.objects.create(name="A", slug="a")
    cohorts = [Cohort.objects.create(name="C", slug=f"c{number}", academy=academy) for number in range(count)]
    bus.take()
    signal.send(None, instance=cohorts[0], others=Cohort.objects.all())
    with CaptureQueriesContext(connection) as queries:
        bus.work()

    assert seen == [["A"] * (count + 1)]
    assert len([query for query in queries if query["sql"].startswith("SELECT")]) == 1


def test_without_the_option_no_relation_is_loaded(bus: Bus, signal: Signal):
    """The query has no join."""
    seen: list[Any] = []
    connect(signal, lambda instance, **kwargs: seen.append(instance._state.fields_cache), "seer")
    academy = Academy.objects.create(name="A", slug="a")
    signal.send(None, instance=Cohort.objects.create(name="C", slug="c", academy=academy))
    bus.work()

    assert seen == [{}]


def test_a_wrong_relation_names_receiver_and_option(bus: Bus):
    """The list of failures says what to correct, and where."""
    signal = new_signal()

    def receiver_that_asks_wrongly(sender, instance, **kwargs):
        raise AssertionError("never run")

    connect(signal, receiver_that_asks_wrongly, select_related={"instance": ("academi",)}, retry=ONCE)
    signal.send(None, instance=Academy.objects.create(name="A", slug="a"))
    bus.work()

    error = only().error
    assert "receiver_that_asks_wrongly" in error
    assert "select_related={'instance': ('academi',)}" in error
    assert "Invalid field name(s) given in select_related: 'academi'" in error
    assert Delivery.objects.get().state == "dead"


def test_a_message_without_values_fails_where_they_are_needed(bus: Bus):
    """The sender did not have the receiver's code; a delivery that needs values is never lost as skipped."""
    signal = new_signal(open=True)
    academy = Academy.objects.create(name="A", slug="a")
    with transaction.atomic():
        signal.send(None, instance=academy)
        academy.delete()
    connect(signal, lambda **kwargs: None, "stands in", on_missing="snapshot")
    bus.work()

    assert rows() == [("stands in", "pending", 1)]

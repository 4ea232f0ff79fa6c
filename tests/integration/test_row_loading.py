"""A row that is loaded with SQL compiled once equals the row that Django's ORM loads."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.test import modify_settings, override_settings
from django.test.utils import CaptureQueriesContext

from signalbus.compat.row_sql import row_query
from signalbus.exceptions import MissingRow
from signalbus.receiving.invoking.row_loading import fetch
from signalbus.wire import codec
from signalbus.wire.values.references import Reference, Snapshot, reference_to

from . import shapes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Model

models: Any = import_module(f"{shapes.__name__}.models")  # whose managers mypy does not know: no project has them
MOMENT = dt.datetime(2026, 3, 29, 1, 59, 59, 123456, tzinfo=dt.UTC)
FULL: dict[str, Any] = {
    "number": -(2**63),
    "raw": b"\x00\xff",
    "truth": True,
    "char": "ä%s\U0001f600",
    "date": MOMENT.date(),
    "moment": MOMENT,
    "decimal": Decimal("-12345678.9012"),
    "duration": dt.timedelta(days=-3, microseconds=1),
    "email": "a@b.example",
    "file": "a/b.txt",
    "float": 0.1,
    "ip": "::1",
    "integer": 21,
    "json": {"a": [1, None, 2.5, "x"]},
    "positive": 2**62,
    "slug": "a-b",
    "small": -1,
    "text": "two\nlines",
    "time": MOMENT.time(),
    "url": "https://example.org/",
    "uuid": uuid.uuid4(),
    "heat": 1 + 2j,
}
Rows = list[tuple[Any, dict[str, Any]]]
COMPILED: Rows = [
    (models.Plain, {"name": "a"}),
    (models.Every, FULL),
    (models.Every, {}),
    (models.ByText, {"slug": "A'b"}),
    (models.ByUUID, {}),
    (models.ByMoment, {"at": MOMENT}),
    (models.ByDecimal, {"amount": Decimal("1.50")}),
    (models.ByHeat, {"heat": 1 + 2j}),
]
COMPILED += [
    (models.ByCode, {"id": models.Code("it_1")}),
]
POSTGRES: Rows = [(models.Ranges, {"numbers": [Decimal("1.50")], "span": DateTimeTZRange(MOMENT, None)})]
THE_ORMS: Rows = [
    (models.Child, {"name": "a", "more": "b"}),
    (models.Line, {"order": 1, "number": 2}),
    (models.CodeLine, {"code": models.Code("it_1"), "number": 2}),
    (models.Managed, {"name": "a"}),
    (models.Remembering, {"name": "a"}),
]


@pytest.fixture
def tables(database_url: str) -> Iterator[None]:
    """The tables of the app, with a row that is not looked for."""
    every: list[Any] = [model for model in vars(models).values() if getattr(model, "__module__", "") == models.__name__]
    made = [model for model in every if hasattr(model, "_meta") and not model._meta.proxy]
    if connection.vendor != "postgresql":
        made.remove(models.Ranges)
    with modify_settings(INSTALLED_APPS={"append": "tests.integration.shapes"}):
        with connection.schema_editor() as editor:
            for model in made:
                editor.create_model(model)
        models.Plain.objects.create(name="other")
        yield
        if connection.vendor == "mysql":  # one database for all tests
            with connection.schema_editor() as editor:
                for model in reversed(made):
                    editor.delete_model(model)


def fetched(instance: Model) -> Model:
    """Load a row as a worker does for one reference."""
    reference = reference_to(instance)
    assert reference is not None
    return fetch({reference: ()})[reference]


def assert_same(ours: Model, theirs: Model) -> None:
    """Compare two instances: values, types and Django's state of them."""
    assert type(ours) is type(theirs)
    for name, value in vars(theirs).items():
        if name != "_state":
            assert (vars(ours)[name], type(vars(ours)[name])) == (value, type(value)), name
    assert vars(ours).keys() == vars(theirs).keys()
    assert (ours._state.db, ours._state.adding) == (theirs._state.db, theirs._state.adding) == ("default", False)
    assert ours._state.fields_cache == theirs._state.fields_cache == {}
    assert ours.get_deferred_fields() == theirs.get_deferred_fields()


def test_a_loaded_row_equals_the_orms(tables):
    """This holds for every field and every kind of key, the first time and with known SQL, by the same statement."""
    for model, values in [*COMPILED, *THE_ORMS, *(POSTGRES if connection.vendor == "postgresql" else ())]:
        instance = model.objects.create(**values)
        with CaptureQueriesContext(connection) as asked:
            theirs = model._base_manager.order_by().in_bulk([instance.pk])[instance.pk]

        for _ in range(2):
            with CaptureQueriesContext(connection) as queries:
                ours = fetched(instance)
            assert_same(ours, theirs)
            assert [query["sql"] for query in queries] == [query["sql"] for query in asked]

        assert (row_query(model, connection, instance.pk) is None) == ((model, values) in THE_ORMS)


def test_relations_and_proxies(tables):
    """Relations are loaded on access; a proxy has its own class; a key that is a relation uses the ORM."""
    plain = models.Plain.objects.create(name="a")
    every = models.Every.objects.create(plain=plain, single=plain)
    every.others.add(plain)
    by_relation = models.ByRelation.objects.create(plain=plain)

    ours: Any = fetched(every)

    assert (ours.plain, ours.single, [*ours.others.all()]) == (plain, plain, [plain])
    assert type(fetched(models.Proxy.objects.get(pk=plain.pk))) is models.Proxy
    assert fetched(by_relation) == by_relation
    assert row_query(models.ByRelation, connection, plain.pk) is None


def test_each_load_is_fresh(tables):
    """A load finds the present row, or none; no two receivers share an instance."""
    plain = models.Plain.objects.create(name="before")
    first: Any = fetched(plain)
    models.Plain.objects.update(name="after")
    second: Any = fetched(plain)
    models.Plain.objects.filter(pk=plain.pk).delete()

    assert (first.name, second.name) == ("before", "after")
    assert fetch({Reference(plain._meta.label, plain.pk): ()}) == {}


def test_a_row_comes_from_the_database_that_the_reference_names(tables, monkeypatch):
    """Each database has its own SQL and connection."""
    plain = models.Plain.objects.create(name="a")
    fetched(plain)
    monkeypatch.setitem(connections.settings, "second", connections.settings["default"])
    reference = Reference(plain._meta.label, plain.pk, "second")
    try:
        with CaptureQueriesContext(connections["second"]) as queries:
            found = fetch({reference: ()})[reference]
    finally:
        connections["second"].close()
        del connections["second"]

    assert (found, found._state.db, len(queries)) == (plain, "second", 1)


def test_a_thread_uses_its_own_connection(tables):
    """Django refuses another thread's connection."""
    plain = models.Plain.objects.create(name="a")
    fetched(plain)
    found: list[Model] = []

    def work() -> None:
        try:
            found.extend([fetched(plain), fetched(plain)])
        finally:
            connection.close()

    thread = Thread(target=work)
    thread.start()
    thread.join(15)

    assert found == [plain, plain]


def test_a_changed_setting_compiles_the_sql_again(tables):
    """A test may override a setting that affects how values are read."""
    instance = models.ByMoment.objects.create(at=MOMENT)
    aware: Any = fetched(instance)
    with override_settings(USE_TZ=False):
        (theirs,) = models.ByMoment.objects.all()
        naive: Any = fetched(theirs)

    assert naive.at == theirs.at
    assert (aware.at.tzinfo is None, naive.at.tzinfo is None) == (False, True)


def test_sql_is_compiled_once_until_a_field_is_added(tables):
    """Django then makes the list of a model's fields anew."""
    first = row_query(models.Plain, connection, 1)
    second = row_query(models.Plain, connection, 2)
    models.Plain._meta._expire_cache()  # what adding one does
    third = row_query(models.Plain, connection, 3)

    assert first is second is not None
    assert third not in {None, first}


def through_the_wire(value: Any) -> Any:
    """Send a value and read it as a worker does."""
    text, _ = codec.encode(None, {"value": value})
    return codec.decode(text, fetch)[1]["value"]


def test_rows_with_keys_of_a_type_of_their_own_travel(tables):
    """A reference to such a row, also as part of a composite key or a foreign key, is resolved."""
    code = models.ByCode.objects.create(id=models.Code("it_1"))
    other = models.ByCode.objects.create(id=models.Code("it_2"))
    line = models.CodeLine.objects.create(code=models.Code("it_1"), number=2)
    link = models.ToCode.objects.create(target=code)

    assert through_the_wire([code, other, code]) == [code, other, code]
    assert through_the_wire(line) == line
    assert through_the_wire(link).target == code
    assert through_the_wire(Snapshot(link)).target_id == models.Code("it_1")


def test_a_row_is_matched_to_its_reference_by_the_database(tables):
    """A key that is converted for the database is found, alone and among others."""
    one, two = models.ByShown.objects.create(), models.ByShown.objects.create()
    one, two = models.ByShown.objects.all().order_by("pk")

    assert through_the_wire(one) == one
    assert through_the_wire([one, two]) == [one, two]


def test_a_key_that_the_database_compares_without_case_is_found(tables):
    """The database decides that the row is the reference's."""
    if connection.vendor == "postgresql":
        pytest.skip("PostgreSQL compares texts exactly")
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("DROP TABLE shapes_bytext")
            cursor.execute("CREATE TABLE shapes_bytext (slug varchar(20) PRIMARY KEY COLLATE NOCASE)")
    row = models.ByText.objects.create(slug="Web")
    other = models.ByText.objects.create(slug="Design")
    references = [Reference("shapes.ByText", slug) for slug in ("WEB", "Design", "gone")]

    found = fetch(dict.fromkeys(references, ()))

    assert found == {references[0]: row, references[1]: other}
    assert fetch({references[0]: ()}) == {references[0]: row}


def test_the_error_of_a_hidden_row_names_the_base_manager(tables):
    """The error says that the manager may hide the row, and names the model and the option."""
    row = models.Soft.objects.create()
    row.deleted = True
    row.save()

    for model in (models.Soft, models.SoftProxy):
        row.__class__ = model
        with pytest.raises(MissingRow) as caught:
            through_the_wire(row)

        assert "gone" not in str(caught.value)
        assert f"hidden by the base manager of {model._meta.label} (Meta.base_manager_name" in str(caught.value)
        assert caught.value.hidden == (model._meta.label,)
